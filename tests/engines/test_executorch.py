"""Exported modules give what the networks give; what cannot be exported or loaded says so."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from exported_models import (
    FP32,
    bert,
    checkpoint_of,
    exported_checkpoint,
    in_this_process,
    llama,
    smol,
)

from atom_repro.data.toy.dataset import write_video
from atom_repro.datatypes import AtomError, Clip
from atom_repro.device.cpu import Cpu
from atom_repro.engines import executorch, exporter
from atom_repro.engines.eager import EagerEngine
from atom_repro.models.exported import FORMS, Forms
from atom_repro.models.generation import GenerationSettings
from atom_repro.quant import dynamic_activation, int8
from atom_repro.runtime.residency import module_loaders
from atom_repro.runtime.runtime import Arm, Runtime

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

INT8 = dynamic_activation.build(weight_bits=8, group=0)
INT4 = dynamic_activation.build(weight_bits=4, group=32)
SETTINGS = GenerationSettings(beams=3, max_new_tokens=6, forbid_end=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A checkpoint of a model with everything exported, one for a model and a quantiser."""

    made = {}

    def make(model, quantiser):
        key = model.name, quantiser.recipe
        if key not in made:
            made[key] = exported_checkpoint(model, quantiser, tmp_path_factory)
        return made[key]

    return make


def modules(engine, checkpoint, quantiser, model):
    return (
        engine.load_encoder(checkpoint.encoder(quantiser), model, quantiser),
        engine.load_decoder(checkpoint.decoder(quantiser), model, quantiser),
    )


def clips(model, number):
    size = model.encoder.image_size
    shape = (number, model.encoder.frames, 3, size, size)
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("make", "quantiser", "tolerance"),
    [
        pytest.param(llama, FP32, 1e-4, id="llama"),
        pytest.param(bert, FP32, 1e-4, id="bert", marks=pytest.mark.long),
        # The study and README's commands export 8da8w too, and each export compares itself.
        pytest.param(llama, INT8, 3e-2, id="llama-8da8w", marks=pytest.mark.long),
        pytest.param(bert, INT8, 3e-2, id="bert-8da8w", marks=pytest.mark.long),
        pytest.param(llama, INT4, 3e-2, id="llama-8da4w", marks=pytest.mark.long),
        pytest.param(smol, FP32, 1e-4, id="smolvlm2", marks=pytest.mark.long),
    ],
)
def test_exported_modules_give_what_the_networks_give(exported, make, quantiser, tolerance):
    model = make()
    checkpoint = exported(model, quantiser)
    encoder, decoder = modules(in_this_process(), checkpoint, quantiser, model)
    like, reference = modules(EagerEngine(), checkpoint, quantiser, model)
    frames = clips(model, 3)
    visual, expected = encoder(frames), like(frames)
    error = (visual.tokens - expected.tokens).abs().max() / expected.tokens.abs().max()
    assert error < tolerance
    assert visual.frame_tokens == expected.frame_tokens
    texts, wanted = (d.generate(expected, "", SETTINGS) for d in (decoder, reference))
    assert [t.token_ids for t in texts] == [t.token_ids for t in wanted]
    assert [t.log_prob for t in texts] == pytest.approx([t.log_prob for t in wanted], rel=tolerance)
    scores, like_these = (d.score(expected, "", ["a ball", "boats"]) for d in (decoder, reference))
    for clip, other in zip(scores, like_these, strict=True):
        assert [sum(s) for s in clip] == pytest.approx([sum(s) for s in other], rel=tolerance)
    previous = torch.get_num_threads()
    torch.set_num_threads(1)  # the methods that were loaded for one thread
    try:
        assert decoder.generate(expected, "", SETTINGS) == texts
    finally:
        torch.set_num_threads(previous)
    for module in (encoder, decoder):
        module.release()


def test_a_form_is_part_of_the_key_and_the_usual_one_is_not(tmp_path):
    model = llama()
    checkpoint = checkpoint_of(model, tmp_path / "ck")
    folders = {"encoder": checkpoint.encoder(), "decoder": checkpoint.decoder()}
    keys = {
        (module, forms): executorch._export_of(folder, module, model, FP32, forms).identity
        for module, folder in folders.items()
        for forms in (FORMS, Forms(fused=False), Forms(hoisted=False))
    }
    for module in folders:  # as before there were forms: what was exported then is not made again
        assert set(keys[module, FORMS]) == {"network", "numbers", "form", "weights", "recipe"}
        assert keys[module, Forms(fused=False)] == {**keys[module, FORMS], "fused": False}
    assert keys["encoder", Forms(hoisted=False)] == keys["encoder", FORMS]
    assert keys["decoder", Forms(hoisted=False)] == {**keys["decoder", FORMS], "hoisted": False}


@pytest.mark.long
@pytest.mark.parametrize("quantiser", [FP32, INT8], ids=["fp32", "8da8w"])
def test_graphs_without_their_optimisations_give_the_same(exported, quantiser):
    model = llama()
    checkpoint = exported(model, quantiser)
    encoder, decoder = modules(in_this_process(), checkpoint, quantiser, model)
    frames = clips(model, 2)
    visual = encoder(frames)
    expected = decoder.generate(visual, "", SETTINGS)
    plain = executorch.build(processes=False, huge_pages=False, fused=False, hoisted=False)
    with pytest.raises(AtomError, match=r"encoder is not exported for engine=executorch"):
        plain.load_encoder(checkpoint.encoder(quantiser), model, quantiser)
    plain.prepare(checkpoint, quantiser, model, "embedded")  # compares each file with PyTorch
    encoder, decoder = modules(plain, checkpoint, quantiser, model)
    tolerance = 1e-4 if quantiser is FP32 else 3e-2
    assert torch.allclose(
        encoder(frames).tokens, visual.tokens, atol=tolerance * visual.tokens.abs().max()
    )
    found = decoder.generate(visual, "", SETTINGS)
    assert [t.log_prob for t in found] == pytest.approx([t.log_prob for t in expected], rel=0.03)
    assert quantiser is INT8 or [t.token_ids for t in found] == [t.token_ids for t in expected]


def test_arms_on_worker_processes_say_the_same(exported, tmp_path):
    model = llama()
    checkpoint, engine = exported(model, FP32), executorch.build(processes=True, huge_pages=True)
    size = model.encoder.image_size
    videos = []
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (12, size, size, 3), dtype=np.uint8)
        write_video(tmp_path / f"{i}.mp4", pixels, 4)
        videos.append(Clip("toy", "test", f"{i}", tmp_path / f"{i}.mp4"))
    outputs = {}
    for engine_, residency, schedule, size in (
        (EagerEngine(), "resident", "sequential", 1),
        (engine, "reload_stage", "sequential", 1),
        (engine, "resident", "parallel", 1),
        (engine, "resident", "parallel", 3),
    ):
        arm = Arm(residency=residency, schedule=schedule, decode_batch=size)
        loaders = module_loaders(engine_, checkpoint, FP32, model, Cpu(), embedder="embedded")
        with Runtime(arm, loaders, Cpu(), model=model, settings=SETTINGS) as runtime:
            said = [outcome.token_ids for outcome in runtime.caption(videos)]
        outputs[engine_.name, residency, schedule, size] = said
    expected = outputs["eager", "resident", "sequential", 1]
    assert len(set(expected)) > 1
    assert all(said == expected for said in outputs.values()), outputs


def test_weights_or_versions_change_the_file_that_counts(exported, monkeypatch):
    model = llama()
    checkpoint, engine = exported(model, FP32), in_this_process()
    config = checkpoint.decoder() / "config.json"
    text = config.read_text()
    engine.load_decoder(checkpoint.decoder(), model)
    config.write_text(text.replace('"weights": "random"', '"weights": "trained:1"'))
    try:
        with pytest.raises(AtomError, match=r"decoder is not exported for engine=executorch"):
            engine.load_decoder(checkpoint.decoder(), model)
    finally:
        config.write_text(text)
    monkeypatch.setattr(exporter, "version", lambda name: "0.1")
    with pytest.raises(AtomError, match="encoder is not exported"):
        engine.load_encoder(checkpoint.encoder(), model)


def test_a_broken_file_is_one_line(exported):
    model = llama()
    checkpoint, engine = exported(model, FP32), in_this_process()
    (program,) = checkpoint.folder.glob("fp32/executorch/encoder-*/model.pte")
    whole = program.read_bytes()
    try:
        for broken in (b"", whole[:5000], b"x" * len(whole)):
            program.write_bytes(broken)
            with pytest.raises(AtomError, match=r"model\.pte does not load .* delete its folder"):
                engine.load_encoder(checkpoint.encoder(), model)
    finally:
        program.write_bytes(whole)


def test_what_this_engine_cannot_run_says_what_it_can(tmp_path):
    model, paper = llama(), int8.build(linear="dynamic", embedding="weight_only")
    checkpoint, engine = (
        checkpoint_of(model, tmp_path / "ck"),
        in_this_process(),
    )
    checkpoint.prepare(paper, model)
    with pytest.raises(AtomError, match="multiplies quant=none, 8da8w and 8da4w, not int8"):
        engine.prepare(checkpoint, paper, model, "embedded")
    with pytest.raises(AtomError, match="runs on device=cpu"):
        engine.load_encoder(checkpoint.encoder(), model, FP32, torch.device("meta"))


def wrong(methods, *_):
    """An exported file that computes something else: each output doubled."""
    for method in methods:
        forward = method.module.forward
        method.module.forward = lambda *a, forward=forward: [2 * x for x in forward(*a)]
    return []


def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("place", "fault", "error", "message"),
    [
        ("_compare", wrong, AtomError, "the encoder for engine=executorch computes something else"),
        ("lower", killed, MemoryError, "was killed, most likely for lack of memory"),
    ],
)
def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch, place, fault, error, message):
    model = llama()
    checkpoint = checkpoint_of(model, tmp_path / "ck")

    def export(work, *arguments):
        in_a_process(_with_fault, place, fault, work, *arguments)

    in_a_process = executorch.in_a_process
    monkeypatch.setattr(executorch, "in_a_process", export)
    with pytest.raises(error, match=message):
        in_this_process().prepare(checkpoint, FP32, model, "embedded")
    folder = checkpoint.folder / "fp32/executorch"
    assert [p for p in folder.glob("*") if not p.name.startswith(".")] == []


def _with_fault(place, fault, work, *arguments):
    sound = getattr(exporter, place)

    def faulty(methods, *rest, **options):
        fault(methods)
        sound(methods, *rest, **options)

    setattr(exporter, place, faulty)
    work(*arguments)


def test_the_description_names_what_was_exported(exported):
    model = llama()
    checkpoint = exported(model, FP32)
    (folder,) = checkpoint.folder.glob("fp32/executorch/decoder-*")
    content = json.loads((folder / "export.json").read_text())
    assert content["identity"]["recipe"] == "fp32"
    assert content["identity"]["numbers"] == model.decoder.to_dict()
    assert content["host"] == {"weights": "random"}
