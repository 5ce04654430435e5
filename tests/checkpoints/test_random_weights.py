"""Modules of random weights: of the model's shapes, labelled, made once, never judged."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import spoil

from atom_repro import config
from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.random_weights import write_random_weights
from atom_repro.config.composition import compose
from atom_repro.datatypes import AtomError
from atom_repro.device.cpu import Cpu
from atom_repro.engines.eager import EagerEngine
from atom_repro.engines.roofline import caption_work
from atom_repro.models.generation import GenerationSettings
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.quant import int8, none
from atom_repro.runtime.setup import Setup

FAMILIES = ["tiny_mplug2plus", "tiny_mplug2"]
QUANTISERS = (none.build(), int8.build(linear="dynamic", embedding="weight_only"))


def model_named(name):
    return config.build(compose("latency", [f"model={name}"]).model)


@pytest.mark.parametrize("name", FAMILIES)
def test_they_make_captions_of_the_length_that_is_asked_for(tmp_path, name):
    model, checkpoint = model_named(name), Checkpoint(tmp_path / "random")
    write_random_weights(checkpoint, model, seed=0)
    assert checkpoint.weights() == "random"
    encoder = EagerEngine().load_encoder(checkpoint.encoder(), model)
    decoder = EagerEngine().load_decoder(checkpoint.decoder(), model)
    numbers = model.encoder
    frames = torch.randint(
        0, 256, (1, numbers.frames, 3, numbers.image_size, numbers.image_size), dtype=torch.uint8
    )
    visual = encoder(frames)
    assert visual.tokens.isfinite().all()
    assert 0.01 < visual.tokens.std() < 100  # neither dying out nor overflowing
    settings = GenerationSettings(beams=2, max_new_tokens=7, forbid_end=True)
    (best,) = decoder.generate(visual, model.prompt, settings)
    assert len(best.token_ids) == 7
    assert len(best.text.split()) == 7


def test_they_are_made_once_and_differ_by_seed(tmp_path):
    model = model_named("tiny_mplug2plus")

    def written(folder, seed):
        checkpoint = Checkpoint(tmp_path / folder)
        write_random_weights(checkpoint, model, seed=seed)
        path = checkpoint.decoder() / "model.safetensors"
        return path.stat().st_ino, path.read_bytes()

    first, again = written("a", 0), written("a", 0)
    assert first[0] == again[0]
    assert written("b", 0)[1] == first[1] != written("c", 1)[1]


def test_a_stand_in_tokenizer_has_a_word_for_every_id(tmp_path):
    specials = model_named("tiny_mplug2plus").specials
    made = Tokenizer.word_level(50, specials)
    assert made.size == 50
    assert made.encode("w10 w49 beach") == [10, 49, 49]
    assert made.decode([10, made.end_id, 49]) == "w10 w49"
    made.save(tmp_path)
    assert Tokenizer.load(tmp_path, specials).encode("w10") == [10]


def setup(tmp_path, **changed):
    model = model_named("tiny_mplug2plus")
    parts = {
        "model": model,
        "dataset": SimpleNamespace(fingerprint="d"),
        "engine": EagerEngine(),
        "quantiser": int8.build(linear="dynamic", embedding="weight_only"),
        "visual_stages": (),
        "device": Cpu(),
        "checkpoint": Checkpoint(tmp_path / "systems"),
        "generation": GenerationSettings(),
        "embedder": "embedded",
        "seed": 0,
        "random_weights": True,
        "components": {},
    }
    return Setup(**(parts | changed))


def test_what_judges_texts_refuses_them(tmp_path):
    one = setup(tmp_path)
    with pytest.raises(AtomError, match=r"random ones .*cannot be scored"):
        one.prepare_modules(for_quality=True)
    assert not one.checkpoint.folder.exists()
    assert "Linear" not in one.prepare_modules(for_quality=False)["decoder"]["skipped"]
    assert one.inputs == {"dataset": "d", "weights": "random", "device": "cpu"}
    given = setup(tmp_path, random_weights=False)  # the same folder, by checkpoint.folder
    with pytest.raises(AtomError, match="cannot be scored"):
        given.prepare_modules(for_quality=True)


def test_what_is_there_stays_and_what_a_kill_left_out_is_made(tmp_path):
    one = setup(tmp_path)
    one.prepare_modules(for_quality=False)
    encoder = one.checkpoint.encoder()
    kept = (encoder / "model.safetensors").stat().st_ino
    shutil.rmtree(one.checkpoint.decoder())
    one.prepare_modules(for_quality=False)
    assert one.checkpoint.complete
    assert (encoder / "model.safetensors").stat().st_ino == kept

    # Weights that somebody trained at this scale are used, and may be judged.
    for folder in (encoder, one.checkpoint.decoder()):
        path = folder / "config.json"
        path.write_text(path.read_text().replace('"random"', '"trained:abc"'))
    one.prepare_modules(for_quality=True)
    assert one.weights == "trained:abc"
    spoil(encoder)
    with pytest.raises(AtomError, match=r"encoder/model\.safetensors: weights are not finite: "):
        one.prepare_modules(for_quality=True)


def test_a_decoder_step_reads_a_byte_a_weight_and_a_scale_a_row():
    model = model_named("tiny_mplug2plus")
    words = Tokenizer.word_level(model.decoder.vocabulary, model.specials)
    settings = GenerationSettings(beams=1, max_new_tokens=11)
    work = {q.name: caption_work(model, words, settings, q).step_bytes for q in QUANTISERS}
    with torch.device("meta"):
        decoder = model.make_decoder()
    # Each matrix once; the head is the embedding's, of which it reads every row.
    matrices = {id(p): p for p in decoder.parameters() if p.dim() == 2}.values()
    saved = sum(3 * m.numel() - 4 * m.shape[0] for m in matrices)
    assert work["fp32"] - work["int8"] == saved


@pytest.mark.parametrize("name", [*FAMILIES, "smolvlm2_256m"])
def test_the_least_work_of_a_caption(name):
    model = model_named(name)
    words = Tokenizer.word_level(model.decoder.vocabulary, model.specials)
    settings = GenerationSettings(beams=1, max_new_tokens=11)
    work = {q.name: caption_work(model, words, settings, q) for q in QUANTISERS}
    with torch.device("meta"):
        weights = 4 * sum(p.numel() for p in model.make_decoder().parameters())
    assert work["fp32"].steps == 10
    # A step reads each weight at the most once, and nearly all of them; int8 is a quarter.
    assert 0.5 * weights < work["fp32"].step_bytes < 1.1 * weights
    assert 0.2 < work["int8"].step_bytes / work["fp32"].step_bytes < 0.5
    rates = {"read_bytes_per_s": 1e9, "fp32_operations_per_s": 1e9}
    least = work["fp32"].lower_bound_s(rates, "fp32")
    assert least["encode"] == pytest.approx(work["fp32"].encode_operations / 1e9)
    assert least["caption"] > 10 * work["fp32"].step_bytes / 1e9
    assert work["int8"].lower_bound_s(rates, "int8") == {}  # no rate, no limit
