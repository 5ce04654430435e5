"""Trials of a training step: made-up clips of a real step's shapes, and which size comes next."""

from functools import partial

import pytest
from command import forked

from atom_repro import config
from atom_repro.config.composition import compose
from atom_repro.device.cpu import Cpu
from atom_repro.training.network import training_network
from atom_repro.training.step_trial import SyntheticCaptions, measure_step, next_batch_size


@pytest.mark.parametrize("limit", [1, 2, 5, 37, 64, 200])
def test_sizes_close_in_on_the_largest_that_fits(limit):
    tried, fits, too_large = [], 0, None
    while clips := next_batch_size(fits, too_large, 256):
        tried.append(clips)
        fits, too_large = (clips, too_large) if clips <= limit else (fits, clips)
    assert fits <= limit < too_large
    assert too_large - fits <= max(1, fits // 8)
    assert len(tried) == len(set(tried)) <= 12


@pytest.mark.parametrize(("most", "ends"), [(1, 1), (6, 6), (8, 8)])
def test_nothing_larger_than_asked_for_is_tried(most, ends):
    fits = 0
    while clips := next_batch_size(fits, None, most):
        fits = clips
    assert fits == ends


def test_nothing_fits():
    assert next_batch_size(0, 1, 256) is None


def two_trials(name):
    """Trials of one clip and of three, and the bytes of what training holds."""
    cfg = compose("training_step", [f"model={name}"])
    model = config.build(cfg.model)
    words = SyntheticCaptions.of(model, length=9, seed=0)
    made = partial(training_network, model, words, cfg.train)
    trials = {
        clips: measure_step(
            made, cfg.train, words.micro_batch(clips=clips, captions_per_clip=2), Cpu(),
            precision="fp32", steps=3,
        )
        for clips in (1, 3)
    }  # fmt: skip
    # Weights, gradients and two states.
    return trials, 4 * 4 * sum(p.numel() for p in made().parameters())


@pytest.mark.parametrize("name", ["tiny_mplug2plus", "tiny_mplug2"])
def test_a_trial_of_one_size(name):
    # In a process of its own: what is measured is memory beyond what this one has freed and kept.
    trials, held = forked(two_trials, name)
    assert len(trials[1].seconds) == 3
    # Matrix products grow with clips; nothing else is counted.
    assert trials[3].operations == pytest.approx(3 * trials[1].operations, rel=0.02)
    # The second trial does not live off what the first freed.
    assert all(trial.peak_bytes > 0.8 * held for trial in trials.values())


def test_made_up_captions_have_the_length_that_is_asked_for():
    model = config.build(compose("training_step", []).model)
    words = SyntheticCaptions.of(model, length=23, seed=0)
    part = words.micro_batch(clips=2, captions_per_clip=3)
    assert part["captions"].shape == (2, 3, 23)
    assert part["captions"][0, 0, -1] == words.tokenizer.end_id
    assert (part["captions"] != words.tokenizer.pad_id).all()
