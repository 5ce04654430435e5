"""The components of a family are its parameters, each once."""

import dataclasses

import pytest
import torch

from atom_repro import config
from atom_repro.datatypes import AtomError
from atom_repro.training.captioning_model import CaptioningModel
from atom_repro.training.checkpointing import checkpoint_blocks
from atom_repro.training.components import choose_trained, component_of, is_visual
from atom_repro.training.lora import merged


def parameters(model):
    return [
        f"{side}.{name}"
        for side, module in (("encoder", model.make_encoder()), ("decoder", model.make_decoder()))
        for name, _ in module.named_parameters()
    ]


@pytest.mark.parametrize("form", ["folded", "reference"])
def test_every_parameter_has_one_component(model, form):
    model = dataclasses.replace(model, form=form)
    found = component_of(model, parameters(model))
    assert set(found.values()) == set(model.components)
    assert found["encoder.blocks.1.t2.dw.weight"] == "visual.temporal"
    assert found["encoder.blocks.1.ln2.weight"] == found["encoder.pos"] == "visual.clip"
    assert found["encoder.connector_norm.bias"] == "visual.connector"


@pytest.mark.parametrize("name", ["tiny_mplug2plus", "tiny_mplug2", "smolvlm2_256m"])
def test_every_family_has_components(name):
    model = config.build(config.compose("finetune", [f"model={name}"]).model)
    with torch.device("meta"):
        names = parameters(model)
    assert set(component_of(model, names).values()) == set(model.components)


def test_patterns_that_do_not_fit_are_refused(model):
    with pytest.raises(AtomError, match=r"parameter encoder\.extra of model=small belongs to no"):
        component_of(model, ["encoder.extra"])
    with pytest.raises(AtomError, match=r"component visual\.temporal of model=small matches no"):
        component_of(model, [p for p in parameters(model) if ".t1." not in p and ".t2." not in p])


def test_membership(model):
    visual = is_visual(model)
    assert visual("encoder.blocks.0.t1.up.bias")
    assert not visual("encoder.connector.weight")
    assert not visual("decoder.model.norm.weight")
    assert not visual("word_head.weight")


CHOICES = {"visual.clip": "frozen", "visual.temporal": "full", "decoder": "lora"}


def joined(model, tokenizer, choices):
    torch.manual_seed(0)
    network = CaptioningModel(
        model, tokenizer, word_weight=0.0, text_weight=0.0, rarity=[1.0] * 300
    )
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    choose_trained(network, model, choices, rank=4, alpha=8.0)
    return network


def a_step(network, frames):
    captions = torch.randint(3, 250, (4, 2, 6), generator=torch.Generator().manual_seed(2))
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # at the first, the maps down have no gradient yet
        loss, _ = network({"frames": frames, "captions": captions, "caption_weight": 1.0})
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def test_what_is_frozen_stays_bit_for_bit(model, tokenizer, frames):
    network = joined(model, tokenizer, CHOICES)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    a_step(network, frames)
    owners = component_of(model, parameters(model))
    changed = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert {n for n in changed if "lora_" not in n} == {
        n for n, owner in owners.items() if owner in ("visual.temporal", "visual.connector")
    }
    adapted = {n for n in before if "lora_" in n}
    assert adapted <= changed
    assert len(adapted) == 2 * 7 * model.decoder.layers
    assert all(n.startswith("decoder.model.layers.") for n in adapted)


def test_a_merged_adaptation_says_the_same_under_the_old_names(model, tokenizer, frames):
    network = joined(model, tokenizer, CHOICES)
    a_step(network, frames)
    decoder = merged(network.decoder).eval()
    embeds = torch.randn(2, 9, model.decoder.width)
    assert torch.allclose(decoder(embeds), network.decoder.eval()(embeds), atol=1e-5)
    assert decoder.state_dict().keys() == model.make_decoder().state_dict().keys()
    assert decoder.lm_head.weight is decoder.model.embed_tokens.weight
    fresh = model.make_decoder()
    fresh.load_state_dict(decoder.state_dict())
    assert torch.allclose(fresh.eval()(embeds), decoder(embeds), atol=1e-5)
    assert merged(network.encoder) is network.encoder


def test_an_adaptation_begins_as_nothing(model, tokenizer):
    embeds = torch.randn(2, 9, model.decoder.width)
    plain, adapted = (joined(model, tokenizer, c).decoder.eval() for c in ({}, CHOICES))
    assert torch.equal(plain(embeds), adapted(embeds))


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"visual.clap": "frozen"}, r"train\.components\.visual\.clap is no component of"),
        ({"decoder": "half"}, r"train\.components\.decoder='half' is none of full, frozen, lora"),
        (
            dict.fromkeys(
                ("visual.clip", "visual.temporal", "visual.connector", "decoder"), "frozen"
            ),
            "leaves nothing to train",
        ),
    ],
)
def test_a_choice_that_cannot_be_is_one_line(model, tokenizer, choices, said):
    with pytest.raises(AtomError, match=said):
        joined(model, tokenizer, choices)


def test_recomputed_blocks_have_equal_gradients(model, tokenizer, frames):
    captions = torch.randint(3, 250, (4, 2, 6), generator=torch.Generator().manual_seed(2))
    gradients = []
    for recomputed in (False, True):
        network = joined(model, tokenizer, {})
        if recomputed:
            layers = model.encoder.layers + model.decoder.layers
            assert checkpoint_blocks(network) == layers
        loss, _ = network({"frames": frames, "captions": captions, "caption_weight": 1.0})
        loss.backward()
        gradients.append({n: p.grad for n, p in network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name
