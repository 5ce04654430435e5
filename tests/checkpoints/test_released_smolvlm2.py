"""A SmolVLM2 in the released layout becomes the same model, and is no start for another family."""

import pytest
import torch
from conftest import TEXTS, small_model
from safetensors.torch import save_file

from atom_repro import config
from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.convert import convert
from atom_repro.checkpoints.released import all_sources
from atom_repro.datatypes import AtomError
from atom_repro.engines import eager
from atom_repro.models import smolvlm2
from atom_repro.models.tokenizer import Tokenizer

VIDEO_OF_MPLUG2 = "mPLUG2 (video encoder)"


def test_a_whole_smolvlm2_is_converted(tmp_path):
    model = smolvlm2.build(
        name="small_smolvlm2",
        prompt="Describe this.",
        encoder={
            "frames": 3, "image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 4,
            "mlp_width": 64, "shuffle": 2,
        },
        decoder={
            "vocabulary": 360, "width": 48, "layers": 2, "heads": 4, "kv_heads": 2,
            "head_width": 12, "mlp_width": 96, "rope_theta": 100000.0, "max_positions": 256,
            "tied": False,
        },
    )  # fmt: skip
    torch.manual_seed(0)
    encoder, decoder = model.make_encoder(), model.make_decoder()
    state = {f"model.{k}": v.detach() for k, v in encoder.checkpoint_state_dict().items()}
    for key, value in decoder.checkpoint_state_dict().items():
        name = key.replace("model.", "model.text_model.", 1) if key.startswith("model.") else key
        state[name] = value.detach()
    released = tmp_path / "released"
    released.mkdir()
    save_file(state, released / "model.safetensors")
    Tokenizer.train(TEXTS * 3, 330, model.specials).save(released)
    report = convert(model, {"whole": str(released)}, tmp_path / "ck")
    assert report.weights.startswith("released:")
    assert all(told["new"] == {} for told in report.modules.values())
    checkpoint = Checkpoint(tmp_path / "ck")
    seen = eager.build().load_encoder(checkpoint.encoder(), model).network.state_dict()
    said = eager.build().load_decoder(checkpoint.decoder(), model).network.state_dict()
    for ours, theirs in ((seen, encoder.state_dict()), (said, decoder.state_dict())):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    both = {"video": str(released), "text": str(released)}
    with pytest.raises(AtomError, match=r"holds no weights of CLIP or mPLUG2 .*model=small takes"):
        convert(small_model(), both, tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "sources", "named"),
    [
        ("smolvlm2_256m", {"whole": "gone.pth"}, {"SmolVLM2"}),
        ("smolvlm2_256m", {"video": "gone.pth"}, {"SmolVLM2"}),
        ("mplug2", {"whole": "gone.pth"}, {"mPLUG2"}),
        ("mplug2plus", {"video": "gone.pth", "text": "gone.pth"}, {"CLIP", VIDEO_OF_MPLUG2}),
        ("mplug2plus", {}, {"CLIP", "Llama", VIDEO_OF_MPLUG2}),
    ],
)
def test_only_sources_of_the_model_are_named(name, sources, named, tmp_path):
    model = config.build(config.compose("convert", [f"model={name}"]).model)
    with pytest.raises(AtomError) as caught:
        convert(model, sources, tmp_path / "ck")
    said = str(caught.value)
    assert {source.name for source in all_sources() if f"{source.name}: " in said} == named
    assert "\n" not in said
