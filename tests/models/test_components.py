"""The components of a family are its parameters, each once."""

import dataclasses

import pytest

from atom_repro.datatypes import AtomError
from atom_repro.models.components import component_of, in_component


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


def test_patterns_that_do_not_fit_are_refused(model):
    with pytest.raises(AtomError, match=r"parameter encoder\.extra of model=small belongs to no"):
        component_of(model, ["encoder.extra"])
    with pytest.raises(AtomError, match=r"component visual\.temporal of model=small matches no"):
        component_of(model, [p for p in parameters(model) if ".t1." not in p and ".t2." not in p])


def test_membership(model):
    visual = in_component(model, "visual.clip", "visual.temporal")
    assert visual("encoder.blocks.0.t1.up.bias")
    assert not visual("encoder.connector.weight")
    assert not visual("decoder.model.norm.weight")
    assert not visual("word_head.weight")
