"""Released files become module folders with the same numbers, or are refused in one line."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import TEXTS, small_model
from safetensors.torch import load_file, save_file

from atom_repro.checkpoints.checkpoint import Checkpoint, starting_tokenizer
from atom_repro.checkpoints.convert import convert
from atom_repro.checkpoints.released import IgnoredKey, MappedKey, all_sources
from atom_repro.checkpoints.weight_files import (
    PickledFile,
    SafetensorsWriter,
    ShardedSafetensors,
    open_weights,
)
from atom_repro.datatypes import AtomError
from atom_repro.device import capacity
from atom_repro.engines import eager
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import SpecialTokens
from atom_repro.training.captioning_model import CaptioningModel
from atom_repro.training.network import load_initial_weights

VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """transformers' own small CLIP and Llama, in every form that they are saved in."""
    from transformers import (
        CLIPConfig,
        CLIPModel,
        CLIPVisionModel,
        LlamaConfig,
        LlamaForCausalLM,
    )

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("released")
    text = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "vocab_size": 40, "eos_token_id": 2,
    }  # fmt: skip
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)).eval()
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=12, tie_word_embeddings=True,
            rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=1,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in (*clip.parameters(), *llama.parameters()):
            if parameter.dim() > 1:
                parameter.normal_(std=0.1)
    vision = CLIPVisionModel(clip.config.vision_config)
    vision.load_state_dict(
        {
            k.removeprefix("vision_model."): v
            for k, v in clip.state_dict().items()
            if k.startswith("vision_model.")
        }
    )
    clip.save_pretrained(folder / "clip")
    vision.save_pretrained(folder / "vision")
    llama.save_pretrained(folder / "llama")
    llama.save_pretrained(folder / "sharded", max_shard_size="60KB")
    half = LlamaForCausalLM(llama.config).to(torch.bfloat16)
    half.load_state_dict(llama.state_dict())
    half.save_pretrained(folder / "bf16")
    for name in ("llama", "sharded", "bf16"):
        Tokenizer.train(TEXTS * 3, 300, SpecialTokens()).save(folder / name)
    return SimpleNamespace(folder=folder, clip=clip, llama=llama)


def from_parts(parts, target, video="clip", text="llama", **changes):
    sources = {"video": str(parts.folder / video), "text": str(parts.folder / text)}
    return convert(small_model(**changes), sources, target, seed=3)


def test_converted_modules_give_the_logits_of_their_parts(parts, tmp_path, frames):
    model = small_model()
    report = from_parts(parts, tmp_path / "ck")
    checkpoint = Checkpoint(tmp_path / "ck")
    encoder = eager.build().load_encoder(checkpoint.encoder(), model)
    decoder = eager.build().load_decoder(checkpoint.decoder(), model)
    network = encoder.network
    with torch.no_grad():
        pixels = (frames.flatten(0, 1) / 255 - network.mean) / network.std
        tower = parts.clip.vision_model
        hidden = tower(pixel_values=pixels).last_hidden_state.view(*frames.shape[:2], -1, 32)
        cls = tower.post_layernorm(hidden[:, :, 0].mean(dim=1, keepdim=True))
        patches = tower.post_layernorm(hidden[:, :, 1:]).flatten(1, 2)
        visual = network.connect(torch.cat((cls, patches), dim=1))
        ids = [0, 7, 9]
        words = parts.llama.get_input_embeddings()(torch.tensor(ids)).expand(len(visual), -1, -1)
        laid = torch.cat((words[:, :1], visual, words[:, 1:]), dim=1)
        theirs = parts.llama(inputs_embeds=laid).logits[:, -1]
        seen = encoder(frames)
        ours, _ = decoder.network.start(seen, [0, *[-1] * seen.count, 7, 9])
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert report.weights.startswith("mixed:") and encoder.weights == report.weights


def test_report_says_what_became_of_every_key(parts, tmp_path):
    report = from_parts(parts, tmp_path / "ck")
    told = json.loads((tmp_path / "ck/conversion.json").read_text())
    encoder = told["modules"]["encoder"]
    used = {k for keys in encoder["loaded"].values() for k in keys}
    held = set(load_file(parts.folder / "clip/model.safetensors"))
    assert used | set(told["ignored"]["CLIP"]) == held
    assert not used & set(told["ignored"]["CLIP"])
    written = set(load_file(tmp_path / "ck/fp32/encoder/model.safetensors"))
    assert set(encoder["loaded"]) | set(encoder["new"]) == written
    assert encoder["new"]["blocks.1.t2.up.weight"] == "CLIP has no temporal modules"
    assert encoder["new"]["connector.weight"] == "CLIP has no connector"
    assert told["modules"]["decoder"]["new"] == {}
    assert "encoder: 31 weights from CLIP" in report.summary()


def test_new_weights_are_those_that_training_starts_with(parts, tmp_path):
    from_parts(parts, tmp_path / "ck")
    torch.manual_seed(3)
    fresh = small_model().make_encoder().checkpoint_state_dict()
    written = load_file(tmp_path / "ck/fp32/encoder/model.safetensors")
    for key in ("connector.weight", "blocks.1.t1.down.weight", "blocks.0.t2.up.weight"):
        torch.testing.assert_close(written[key], fresh[key].detach(), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("video", "text"),
    [("vision", "llama"), ("clip", "sharded"), ("clip", "llama/model.safetensors")],
)
def test_every_form_of_a_release_gives_the_same_weights(parts, tmp_path, video, text):
    plain = from_parts(parts, tmp_path / "plain")
    assert from_parts(parts, tmp_path / "ck", video, text).weights == plain.weights


def test_bf16_is_widened_exactly(parts, tmp_path):
    from_parts(parts, tmp_path / "ck", text="bf16")
    written = load_file(tmp_path / "ck/fp32/decoder/model.safetensors")
    for key, tensor in load_file(parts.folder / "bf16/model.safetensors").items():
        assert tensor.dtype == torch.bfloat16 and written[key].dtype == torch.float32
        assert torch.equal(written[key].to(torch.bfloat16), tensor)


def test_training_starts_from_a_conversion(parts, tmp_path):
    model, checkpoint = small_model(), Checkpoint(tmp_path / "ck")
    report = from_parts(parts, checkpoint.folder)
    words = starting_tokenizer(checkpoint, model)
    network = CaptioningModel(model, words, word_weight=0.0, text_weight=0.0, rarity=[0.0] * 300)
    before = [id(p) for p in network.parameters()]
    assert load_initial_weights(checkpoint, network) == report.weights
    assert [id(p) for p in network.parameters()] == before
    assert all(p.requires_grad for p in network.parameters())
    loaded = eager.build().load_encoder(checkpoint.encoder(), model).network
    assert torch.equal(network.encoder.pos, loaded.pos)
    head, table = network.decoder.lm_head.weight, parts.llama.get_input_embeddings().weight
    assert torch.equal(head, table)


def released_mplug2(encoder: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The layout of the released file around `encoder`, each dropped group with a key or two."""
    names = {
        "cls": "class_embedding", "pos": "positional_embedding", "patch.weight": "conv1.weight",
    }  # fmt: skip
    inner = {
        "t1.norm": "lmhra1.ln", "t1.down": "lmhra1.down_proj", "t1.dw": "lmhra1.conv",
        "t1.up": "lmhra1.up_proj", "t2.norm": "lmhra2.ln", "t2.down": "lmhra2.down_proj",
        "t2.dw": "lmhra2.conv", "t2.up": "lmhra2.up_proj", "ln1": "ln_1", "ln2": "ln_2",
        "fc1": "mlp.c_fc", "fc2": "mlp.c_proj", "attn.out_proj": "attn.out_proj",
    }  # fmt: skip
    state = {}
    for key, value in encoder.items():
        if key.startswith("connector"):
            continue
        name = names.get(key, key)
        if key.startswith("blocks."):
            _, block, rest = key.split(".", 2)
            stem, _, kind = rest.rpartition(".")
            rest = f"{inner[stem]}.{kind}" if stem in inner else rest
            name = f"transformer.resblocks.{block}.{rest}"
        state[f"visual_encoder.visual.{name}"] = value
    for key in (
        "visual_encoder.visual.proj", "visual_encoder.logit_scale", "visual_encoder.ln_final.bias",
        "visual_encoder.transformer.resblocks.0.ln_1.bias", "visual_encoder.text_projection",
        "fusion_encoder.encoder.layer.3.attention.self.query.bias", "visn_emb_norm.weight",
        "text_encoder.embeddings.word_embeddings.weight", "text_encoder.embeddings.position_ids",
        "text_encoder.encoder.layer.21.output.dense.bias", "text_encoder.encoder.layer.22.latents",
        "text_encoder.encoder.layer.23.crossattention.self.key.weight",
        "text_encoder.encoder.layer.23.output_vision.dense.bias",
        "text_decoder.bert.encoder.layer.11.latents", "text_decoder.cls.predictions.bias",
    ):  # fmt: skip
        state[key] = torch.ones(4)
    return state


def test_mplug2_file_starts_the_encoder_with_its_temporal_modules(parts, tmp_path, frames):
    model = small_model()
    torch.manual_seed(5)
    trained = model.make_encoder()
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    state = released_mplug2({k: v.detach() for k, v in trained.checkpoint_state_dict().items()})
    path = tmp_path / "mPLUG2_MSRVTT_Caption.pth"
    optimiser = {"state": {0: {"exp_avg": torch.ones(9), "step": 4}}, "param_groups": []}
    torch.save({"model": state, "optimizer": optimiser, "epoch": 9}, path)
    report = from_parts(parts, tmp_path / "ck", video=str(path))
    assert set(report.modules["encoder"]["new"].values()) == {"mPLUG2 has no connector"}
    ignored = report.ignored["mPLUG2 (video encoder)"]
    assert len(ignored) == 15
    assert ignored["visn_emb_norm.weight"] == "the model has no such universal layer"
    loaded = eager.build().load_encoder(tmp_path / "ck/fp32/encoder", model).network
    torch.testing.assert_close(loaded.embed(frames), trained.eval().embed(frames))


def test_mplug2_as_a_whole_keeps_universal_layers_and_decoder():
    source = next(s for s in all_sources() if s.role == "whole" and s.name == "mPLUG2")
    layer, head = "text_encoder.encoder.layer", "cls.predictions.decoder.weight"
    query = "attention.self.query.weight"
    expected = {
        f"{layer}.22.latents": ("encoder", "uni.latents"),
        f"{layer}.22.{query}": ("encoder", f"uni.pool.{query}"),
        f"{layer}.23.output.LayerNorm.bias": ("encoder", "uni.bcast.output.LayerNorm.bias"),
        "visn_emb_norm.bias": ("encoder", "uni.out.bias"),
        f"text_decoder.{head}": ("decoder", head),
        "text_decoder.bert.encoder.layer.0.crossattention.output.dense.bias": (
            "decoder", "bert.encoder.layer.0.crossattention.output.dense.bias"),
    }  # fmt: skip
    for key, (module, ours) in expected.items():
        mapped = source.map_key(key)
        assert isinstance(mapped, MappedKey)
        assert (mapped.module, mapped.key) == (module, ours)
    assert isinstance(source.map_key("text_decoder.bert.encoder.layer.10.latents"), IgnoredKey)
    assert source.map_key("text_decoder.something_else") is None


def changed(parts, tmp_path, change):
    """The Llama folder with its tensors changed."""
    tensors = load_file(parts.folder / "llama/model.safetensors")
    change(tensors)
    folder = tmp_path / "changed"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text((parts.folder / "llama/tokenizer.json").read_text())
    return str(folder)


NORM, TABLE = "model.norm.weight", "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update(stranger=torch.ones(2)), "1 unexpected keys .*such as stranger"),
        (lambda t: t.pop(NORM), rf"lacks the decoder's {NORM} \(Llama\)"),
        (lambda t: t.update({NORM: torch.ones(50)}), rf"{NORM} .*shape \(50,\), .* is \(48,\)"),
        (lambda t: t.update({NORM: torch.ones(48).long()}), rf"{NORM} is torch.int64"),
        (lambda t: t.update({"lm_head.weight": torch.ones(300, 48)}), "lm_head.weight differs"),
    ],
)
def test_keys_that_do_not_fit_are_named(parts, tmp_path, change, said):
    with pytest.raises(AtomError, match=said) as caught:
        from_parts(parts, tmp_path / "ck", text=changed(parts, tmp_path, change))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ck").exists()


def test_weights_that_are_not_finite_are_not_converted(parts, tmp_path):
    def spoilt(tensors):
        tensors[NORM][3] = float("inf")

    source = changed(parts, tmp_path, spoilt)
    with pytest.raises(AtomError, match=rf"changed: weights are not finite: {NORM}; train"):
        from_parts(parts, tmp_path / "ck", text=source)
    assert not (tmp_path / "ck").exists()


def test_another_width_or_head_count_is_named(parts, tmp_path):
    with pytest.raises(AtomError, match=r"from which patch|shape \(32,\), the model's is \(64,\)"):
        from_parts(parts, tmp_path / "ck", encoder={"width": 64})
    with pytest.raises(AtomError, match=r"num_attention_heads=4, model\.encoder\.heads=8"):
        from_parts(parts, tmp_path / "ck", encoder={"heads": 8})


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("write", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, write):
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    write({"model": {"a": torch.ones(2)}, "x": Payload(mark)}, path)
    with pytest.raises(AtomError, match=r"evil\.pth (is refused: it holds|cannot be read)"):
        PickledFile(path)
    assert not mark.exists()


def test_broken_files_are_named(parts, tmp_path):
    whole = (parts.folder / "llama/model.safetensors").read_bytes()
    for count in (4, 100, len(whole) - 7):
        path = tmp_path / "cut.safetensors"
        path.write_bytes(whole[:count])
        with pytest.raises(AtomError, match=r"cut\.safetensors cannot be read"):
            open_weights(path)
    torch.save({"model": {"a": torch.ones(5000)}}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:9000])
    with pytest.raises(AtomError, match=r"cut\.pth cannot be read"):
        open_weights(tmp_path / "cut.pth")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../llama.safetensors"}}))
    with pytest.raises(AtomError, match=r"is missing, model\.safetensors\.index\.json names it"):
        ShardedSafetensors(index)


def test_absent_tokenizer_target_and_sources_are_one_line(parts, tmp_path, monkeypatch):
    llama = parts.folder / "llama"
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((llama / "model.safetensors").read_bytes())
    with pytest.raises(AtomError, match=r"tokenizer\.json is missing; set sources\.tokenizer"):
        from_parts(parts, tmp_path / "ck", text=str(alone))
    with pytest.raises(AtomError, match=r"exists; choose another target, or force=true"):
        from_parts(parts, tmp_path)
    with pytest.raises(
        AtomError, match=r"sources\.text given; model=small takes sources\.video and"
    ):
        convert(small_model(), {"text": str(llama)}, tmp_path / "ck")
    with pytest.raises(AtomError, match=r"nothing\.pth does not exist; weights are at CLIP: hugg"):
        from_parts(parts, tmp_path / "ck", video=str(tmp_path / "nothing.pth"))

    def offline(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    sources = {"video": str(parts.folder / "clip"), "text": "meta-llama/Llama-3.2-1B"}
    with pytest.raises(AtomError, match=r"set sources\.text to a folder or file; .*gated") as said:
        convert(small_model(), sources, tmp_path / "ck")
    assert "\n" not in str(said.value)


def test_too_little_memory_and_disk_are_said_first(parts, tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("70000\n")
    (tmp_path / "memory.current").write_text("50000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 10000\n")
    from_parts(parts, tmp_path / "ck")
    monkeypatch.setattr(capacity, "CGROUP", tmp_path)
    assert capacity.available_memory() == 30000
    with pytest.raises(AtomError, match=r"converting .* needs 0 MiB of memory and 0 MiB are"):
        from_parts(parts, tmp_path / "other")
    with pytest.raises(AtomError, match=r"loading .*model\.safetensors needs"):
        eager.build().load_decoder(tmp_path / "ck/fp32/decoder", small_model())
    monkeypatch.undo()
    monkeypatch.setattr(capacity.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(AtomError, match=r"needs \d+ MiB of disk at .* and 0 MiB are free"):
        from_parts(parts, tmp_path / "other")


_MEASURE = """
import ctypes, json, sys
from pathlib import Path
from conftest import small_model
from atom_repro import config
from atom_repro.checkpoints import convert as conversion, released
from atom_repro.engines import eager

def rss(field):
    text = Path("/proc/self/status").read_text()
    return int(text.split(field + ":")[1].split()[0]) * 1024

def peak(work):
    ctypes.CDLL(None).malloc_trim(0)  # what earlier work freed must not serve this one unseen
    before = rss("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    kept = work()
    return rss("VmHWM") - before

folder, clip, small = (Path(a) for a in sys.argv[1:4])
big = small_model(decoder=json.loads(sys.argv[4]))
sources = {"video": str(clip), "text": str(folder / "llama")}
released.all_sources()
small_sources = {"video": str(clip), "text": str(small)}
conversion.convert(small_model(), small_sources, folder / "warm")  # code, not weights
eager.build().load_decoder(folder / "warm/fp32/decoder", small_model())
measured = {"converting": peak(lambda: conversion.convert(big, sources, folder / "ck"))}
measured["loading"] = peak(lambda: eager.build().load_decoder(folder / "ck/fp32/decoder", big))
full = config.build(config.compose("convert", ["model=mplug2plus"]).model)
plan = conversion._empty_plan
measured["full size"] = peak(lambda: (plan(full, "encoder"), plan(full, "decoder")))
print(json.dumps(measured))
"""


def test_memory_stays_within_its_bounds(parts, tmp_path):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is measured by Linux's /proc")
    numbers = {"width": 512, "layers": 8, "heads": 8, "head_width": 64, "mlp_width": 2048}
    with torch.device("meta"):
        state = small_model(decoder=numbers).make_decoder().checkpoint_state_dict()
    held = {k: torch.zeros(v.shape, dtype=torch.bfloat16) for k, v in state.items()}
    del held["lm_head.weight"]
    (tmp_path / "llama").mkdir()
    save_file(held, tmp_path / "llama/model.safetensors")
    Tokenizer.load(parts.folder / "llama", SpecialTokens()).save(tmp_path / "llama")
    root = Path(__file__).parents[2]
    arguments = [str(tmp_path), str(parts.folder / "clip"), str(parts.folder / "llama")]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments, json.dumps(numbers)],
        capture_output=True, text=True, check=False, cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'tests'}", "OMP_NUM_THREADS": "1", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    size = (tmp_path / "ck/fp32/decoder/model.safetensors").stat().st_size
    assert size > 100e6
    assert size * 0.9 < measured["loading"] < size * 1.15
    assert measured["converting"] < size * 0.35
    assert measured["full size"] < 300e6


def test_the_writer_refuses_what_is_out_of_order(tmp_path):
    with (tmp_path / "w.safetensors").open("wb") as stream:
        writer = SafetensorsWriter(stream, {"a": (2,), "b": (1,)})
        with pytest.raises(ValueError, match="not what comes next"):
            writer.add("b", torch.ones(1))
        writer.add("a", torch.tensor([1.0, 2.0]))
        with pytest.raises(ValueError, match="1 tensors were not written, b"):
            writer.finish()
        writer.add("b", torch.tensor([3.0]))
        writer.finish()
    assert load_file(tmp_path / "w.safetensors")["a"].tolist() == [1.0, 2.0]
