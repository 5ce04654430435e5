"""Groups and rates, ours and as mPLUG-2 was released."""

import math

import pytest
import torch

from atom_repro.datatypes import AtomError
from atom_repro.training.muon import Muon
from atom_repro.training.optimisation import (
    ReleasedSchedule,
    images_first,
    optimiser,
    parameter_groups,
    set_learning_rates,
    warmup_cosine,
)

# Iterations of an epoch of MSR-VTT: 6,513 clips x 20 captions on 8 GPUs of 4.
EPOCH = 6513 * 20 // 32


def named(model):
    return {
        f"{side}.{name}": parameter
        for side, module in (("encoder", model.make_encoder()), ("decoder", model.make_decoder()))
        for name, parameter in module.named_parameters()
    }


def names(groups, parameters, **wanted):
    by_id = {id(p): name for name, p in parameters.items()}
    return {
        by_id[id(p)]
        for group in groups
        if all(group[key] == value for key, value in wanted.items())
        for p in group["params"]
    }


def test_every_parameter_is_in_one_group(model):
    parameters = named(model)
    for rule in ("matrices", "released"):
        groups = parameter_groups(
            parameters,
            weight_decay=0.02,
            decay_rule=rule,
            learning_rate=2e-5,
            visual_learning_rate=2e-6,
            is_visual=lambda name: name.startswith("encoder.") and "connector" not in name,
        )
        assert len(groups) == 4
        members = [id(p) for group in groups for p in group["params"]]
        assert sorted(members) == sorted(map(id, parameters.values()))
        slow = names(groups, parameters, lr=2e-6)
        assert slow == {n for n in parameters if n.startswith("encoder.") and "connect" not in n}


def test_the_released_rule_decays_all_but_biases_and_bert_norms():
    parameters = {
        name: torch.nn.Parameter(torch.zeros(shape))
        for name, shape in {
            "visual_encoder.visual.ln_post.weight": 4,
            "visual_encoder.visual.ln_post.bias": 4,
            "visual_encoder.visual.positional_embedding": (5, 4),
            "visual_encoder.visual.class_embedding": 4,
            "visual_encoder.visual.transformer.resblocks.0.attn.in_proj_bias": 12,
            "text_encoder.encoder.layer.22.latents": (5, 4),
            "text_encoder.encoder.layer.22.attention.output.LayerNorm.weight": 4,
            "visn_emb_norm.weight": 4,
        }.items()
    }

    def decayed(rule):
        groups = parameter_groups(parameters, weight_decay=0.02, decay_rule=rule, learning_rate=1.0)
        return names(groups, parameters, weight_decay=0.02)

    assert parameters.keys() - decayed("released") == {
        "visual_encoder.visual.ln_post.bias",
        "visual_encoder.visual.transformer.resblocks.0.attn.in_proj_bias",
        "text_encoder.encoder.layer.22.attention.output.LayerNorm.weight",
    }
    assert decayed("matrices") == {
        "visual_encoder.visual.positional_embedding",
        "text_encoder.encoder.layer.22.latents",
    }
    with pytest.raises(AtomError, match=r"train\.decay_rule='half' is none of matrices, released"):
        decayed("half")


def test_a_frozen_parameter_is_in_no_group(model):
    parameters = named(model)
    frozen = next(iter(parameters))
    parameters[frozen].requires_grad_(False)
    groups = parameter_groups(
        parameters, weight_decay=0.0, decay_rule="released", learning_rate=1.0
    )
    assert names(groups, parameters) == parameters.keys() - {frozen}


def test_muon_is_for_groups_that_are_marked(model):
    by_name = named(model)
    settings = {"weight_decay": 0.02, "decay_rule": "matrices", "learning_rate": 1e-2}
    plain = optimiser(parameter_groups(by_name, **settings), betas=(0.9, 0.999))
    assert type(plain) is torch.optim.AdamW
    chosen = {id(p) for name, p in by_name.items() if name.endswith("fc1.weight")}
    marked = optimiser(parameter_groups(by_name, **settings, orthogonal=chosen), betas=(0.9, 0.98))
    assert isinstance(marked, Muon)
    groups = [g for g in marked.param_groups if g["orthogonal"]]
    assert {id(p) for g in groups for p in g["params"]} == chosen


def test_our_schedule():
    rate = warmup_cosine(warmup_steps=10, max_steps=110)
    assert rate(0, 2.0) == pytest.approx(0.2)
    assert rate(9, 2.0) == rate(10, 2.0) == 2.0
    assert rate(60, 2.0) == pytest.approx(1.0)
    assert rate(110, 2.0) == pytest.approx(0.0)


def test_steps_of_images_have_a_rate_of_their_own():
    captions = warmup_cosine(warmup_steps=10, max_steps=110)
    rate = images_first(captions, image_steps=100, ratio=2.0)
    assert [rate(100 + step, 1.0) for step in (0, 9, 60)] == [captions(s, 1.0) for s in (0, 9, 60)]
    assert max(rate(step, 1.0) for step in range(100)) == 2.0
    assert rate(0, 1.0) < rate(20, 1.0) > rate(99, 1.0) > 0
    assert images_first(captions, image_steps=0, ratio=2.0) is captions


def test_the_released_schedule():
    rate = ReleasedSchedule(warmup=200, floor=1e-6, epoch=EPOCH, iterations=10 * EPOCH)
    assert rate(0, 2e-5) == rate(1, 2e-5) == 1e-6
    assert rate(101, 2e-5) == pytest.approx(1.05e-5)
    assert rate(201, 2e-5) == 2e-5
    halfway = 200 + (10 * EPOCH - 200) // 2
    assert rate(1 + halfway, 2e-6) == pytest.approx(1.5e-6, rel=1e-4)
    assert rate(10 * EPOCH + 1, 2e-5) == pytest.approx(1e-6)


def test_the_quirk_is_off_until_asked_for():
    meant = ReleasedSchedule(warmup=200, floor=1e-6, epoch=EPOCH, iterations=10 * EPOCH)
    did = ReleasedSchedule(
        warmup=200, floor=1e-6, epoch=EPOCH, iterations=10 * EPOCH, epoch0_quirk=True
    )
    assert round(meant(4001, 2e-5), 7) == 1.96e-5
    assert did(4001, 2e-5) == pytest.approx(4.80e-6)
    other = [n for n in range(10 * EPOCH) if not math.isclose(meant(n, 2e-5), did(n, 2e-5))]
    assert other == list(range(101, EPOCH + 1, 100))


def test_each_group_follows_its_own_rate(model):
    groups = parameter_groups(
        named(model),
        weight_decay=0.02,
        decay_rule="released",
        learning_rate=2e-5,
        visual_learning_rate=2e-6,
        is_visual=lambda name: name.startswith("encoder."),
    )
    made = optimiser(groups, betas=(0.9, 0.999))
    for iteration in (0, 1, 50, 5000):
        set_learning_rates(made, warmup_cosine(warmup_steps=100, max_steps=10_000), iteration)
    fast, slow = made.param_groups[0]["lr"], made.param_groups[-1]["lr"]
    assert fast == pytest.approx(10 * slow)
    assert made.param_groups[0]["betas"] == (0.9, 0.999)
