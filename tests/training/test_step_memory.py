"""The estimate of a step's memory, against the same step's tensors as they really are."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from words import Words

from atom_repro import config
from atom_repro.config.composition import compose
from atom_repro.datatypes import AtomError
from atom_repro.device import capacity
from atom_repro.device.cpu import Cpu
from atom_repro.training import step_memory as measured
from atom_repro.training.network import training_network
from atom_repro.training.step_memory import StepMemory, require_step_memory, step_memory
from atom_repro.training.step_trial import SyntheticCaptions, measure_step


def training(*overrides):
    """Something that makes the network, and a micro-batch without padding."""
    cfg = compose("finetune", list(overrides))
    model = config.build(cfg.model)
    data = SimpleNamespace(tokenizer=Words(), rarity=[1.0] * model.decoder.vocabulary)
    size = model.encoder.image_size
    part = {
        "frames": np.zeros((2, model.encoder.frames, 3, size, size), np.uint8),
        "captions": np.full((2, 2, 12), 5, np.int64),
        "caption_weight": 1.0,
    }
    if model.writes_text:
        target = np.zeros((3, 40), bool)
        target[:, 1:] = True
        part |= {"text": np.full((3, 40), 5, np.int64), "text_target": target, "text_weight": 1.0}
    return lambda: training_network(model, data, cfg.train), part


def taken(make_network, part, precision):
    """Bytes at the peak of a step that computes."""
    with measured._LiveBytes() as live:
        network = make_network()
        network.train()
        tensors = {n: v if isinstance(v, float) else torch.from_numpy(v) for n, v in part.items()}
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = network(tensors)
        loss.backward()
    trained = sum(p.numel() * 4 for p in network.parameters() if p.requires_grad)
    return live.peak + 2 * trained


@pytest.mark.parametrize(
    ("model", "precision", "recomputed"),
    [
        ("tiny_mplug2plus", "fp32", "false"),
        ("tiny_mplug2plus", "bf16", "true"),
        ("tiny_mplug2", "fp32", "true"),
    ],
)
def test_the_estimate_is_what_the_step_takes(model, precision, recomputed):
    make_network, part = training(f"model={model}", f"train.gradient_checkpointing={recomputed}")
    needed = step_memory(make_network, [part], precision=precision)
    assert needed.peak == pytest.approx(taken(make_network, part, precision), rel=0.03)


def test_recomputed_blocks_frozen_parts_and_shards_need_less():
    def needed(*overrides, **how):
        make_network, part = training(*overrides)
        return step_memory(make_network, [part], precision="fp32", **how)

    whole = needed()
    assert whole.states == 2 * whole.gradients
    assert needed("train.gradient_checkpointing=true").peak < 0.9 * whole.peak
    frozen = needed("train.components={visual.clip: frozen}")
    assert frozen.gradients < whole.gradients
    assert frozen.parameters == pytest.approx(whole.parameters, rel=1e-3)
    two = needed(processes=2)
    assert two.peak == whole.peak + whole.gradients
    shared = needed(processes=2, shard=True)
    assert shared.peak < two.peak
    assert shared.states == pytest.approx(whole.states / 2, rel=1e-3)


@pytest.mark.parametrize("clips", [1, 8])
def test_the_bound_is_above_what_the_process_holds(clips):
    cfg = compose("training_step", ["model=tiny_mplug2plus", "train.threads=1"])
    model = config.build(cfg.model)
    captions = SyntheticCaptions.of(model, length=23, seed=0)
    make_network = partial(training_network, model, captions, cfg.train)
    batch = captions.micro_batch(clips=clips, captions_per_clip=1)
    needed = step_memory(make_network, [batch], precision="fp32")
    step = measure_step(make_network, cfg.train, batch, Cpu(), precision="fp32", steps=3)
    assert needed.peak < needed.bound
    assert step.peak_bytes < needed.bound


def test_a_gpu_has_no_such_margin():
    make_network, part = training()
    assert step_memory(make_network, [part], precision="fp32", device="cuda").kept == 0


def test_every_micro_batch_counts():
    make_network, part = training()
    large = part | {n: np.repeat(part[n], 2, axis=0) for n in ("frames", "captions")}

    def peak(*parts):
        return step_memory(make_network, list(parts), precision="fp32").peak

    assert peak(part) < peak(large)
    assert peak(part, large) >= peak(large)


def test_a_share_of_the_parameters_is_no_share_of_the_activations():
    make_network, part = training()
    whole = step_memory(make_network, [part], precision="fp32")
    shared = step_memory(make_network, [part], precision="fp32", processes=2, shard=True)
    held = whole.parameters + whole.gradients + whole.states
    activations = whole.peak - held
    assert activations > 0
    # Its own half of what is held, all of its activations, and a block that is whole for a while.
    assert shared.peak >= held / 2 + activations
    assert shared.peak <= whole.peak + 2 * whole.parameters
    assert shared.whole == whole.parameters


def test_a_full_size_step_is_estimated_without_its_memory():
    make_network, part = training("model=mplug2plus", "train.word_weight=0")
    needed = step_memory(make_network, [part], precision="bf16")
    assert needed.parameters == pytest.approx(4 * 1_591_697_408, rel=1e-3)
    assert needed.peak > needed.parameters + needed.gradients + needed.states


def test_a_step_that_does_not_fit_is_one_line(monkeypatch):
    monkeypatch.setattr(capacity, "available_memory", lambda: 2**30)
    fits, cpu = StepMemory(2**20, 2**20, 2**21, 2**29), torch.device("cpu")
    require_step_memory(fits, cpu)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(AtomError, match=r"step needs 2,048 MiB .* 1,024 MiB .*train\.batch_size"):
        require_step_memory(fits, cpu)
