"""Module folders: whole or absent, and refused by name when they do not fit."""

import errno
import json

import pytest
import torch
from conftest import small_model

from atom_repro.checkpoints import module_files
from atom_repro.datatypes import AtomError
from atom_repro.engines.eager import EagerEngine
from atom_repro.models.generation import GenerationSettings


def test_text_only_and_visual_use_share_the_decoder(saved, model, frames):
    encoder = EagerEngine().load_encoder(saved / "fp32/encoder", model)
    decoder = EagerEngine().load_decoder(saved / "fp32/decoder", model)
    settings = GenerationSettings(max_new_tokens=5, forbid_end=True)
    seen = decoder.generate(encoder(frames), "", settings)
    said = decoder.generate(None, "two boats", settings)
    assert [len(g.token_ids) for g in seen] == [5] * 4
    assert len(said) == 1
    assert decoder.generate(encoder(frames), "", settings) == seen  # nothing of a call stays
    assert decoder.network.lm_head.weight is decoder.network.model.embed_tokens.weight


@torch.inference_mode()
def test_texts_score_as_whole_sequences_do(saved, model, frames):
    """Behind a clip's tokens and behind text alone."""
    encoder = EagerEngine().load_encoder(saved / "fp32/encoder", model)
    decoder = EagerEngine().load_decoder(saved / "fp32/decoder", model)
    network, texts = decoder.network, ["yes", "no, a boat"]
    for visual in (encoder(frames), None):
        scores = decoder.score(visual, "a ball", texts)
        prompt = model.prompt_ids(decoder.tokenizer, "a ball", visual=visual)
        prefix = network.embed_prompt(visual, prompt)
        assert len(scores) == len(prefix)
        for clip, of_clip in enumerate(scores):
            for text, log_probs in zip(texts, of_clip, strict=True):
                ids = decoder.tokenizer.encode(text)
                embeds = torch.cat((prefix[clip], network.embed(torch.tensor(ids))))
                rows = network.lm_head(network(embeds[None])[0, len(prompt) - 1 : -1])
                expected = [float(r[i]) for r, i in zip(rows.log_softmax(-1), ids, strict=True)]
                assert log_probs == pytest.approx(expected, abs=1e-4)
    for none in ([], ["yes", ""]):
        with pytest.raises(AtomError, match="a continuation to score is empty"):
            decoder.score(None, "a ball", none)


def test_other_numbers_are_refused_with_the_key(saved):
    other = small_model(encoder={"mlp_width": 96})
    with pytest.raises(AtomError, match=r"model\.encoder\.mlp_width=64, the configuration says 96"):
        EagerEngine().load_encoder(saved / "fp32/encoder", other)


def test_missing_checkpoint_says_how_to_make_one(tmp_path, model):
    with pytest.raises(AtomError, match=r"no checkpoint in .*python -m train\.finetune"):
        EagerEngine().load_encoder(tmp_path / "nothing", model)


def test_a_decoder_is_not_an_encoder(saved, model):
    with pytest.raises(AtomError, match="holds a text_decoder, a video_encoder is expected"):
        EagerEngine().load_encoder(saved / "fp32/decoder", model)


def test_truncated_weights_are_named(saved, model):
    path = saved / "fp32/decoder/model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(AtomError, match=r"model\.safetensors cannot be read"):
        EagerEngine().load_decoder(saved / "fp32/decoder", model)


def test_weights_of_another_module_do_not_fit(saved, model):
    config = saved / "fp32/encoder/config.json"
    numbers = json.loads(config.read_text())
    numbers["numbers"]["layers"] = 3
    config.write_text(json.dumps(numbers))
    deeper = small_model(encoder={"layers": 3})
    with pytest.raises(AtomError, match=r"does not fit its config\.json.*blocks\.2"):
        EagerEngine().load_encoder(saved / "fp32/encoder", deeper)
    numbers["network"] = "OtherEncoder"
    config.write_text(json.dumps(numbers))
    with pytest.raises(AtomError, match="holds a OtherEncoder, the model has a VideoEncoder"):
        EagerEngine().load_encoder(saved / "fp32/encoder", deeper)


def test_full_disk_keeps_the_last_checkpoint(saved, model, monkeypatch):
    from atom_repro.quant import none

    folder = saved / "fp32/encoder"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module_files, "save_file", full)
    with pytest.raises(AtomError, match=r"no space left on the disk of .*encoder"):
        module_files.save_encoder(folder, model, model.make_encoder(), none.build(), "random")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir() if p.name.startswith(".")] == []
