"""The older eager route: what it changes, and that it leaves no trace in the process."""

import pytest
import torch
from torch import nn

from atom_repro.datatypes import AtomError
from atom_repro.quant import legacy


def small() -> nn.Module:
    return nn.ModuleDict({"table": nn.Embedding(50, 64), "layer": nn.Linear(64, 32)})


@pytest.mark.parametrize(
    ("linear", "embedding", "changed"),
    [(True, False, ["layer"]), (False, True, ["table"]), (True, True, ["table", "layer"])],
)
def test_it_changes_what_it_says_and_stays_near(linear, embedding, changed):
    torch.manual_seed(0)
    module = small()
    ids = torch.arange(50)
    before = module["layer"](module["table"](ids))
    recipe = legacy.build(linear=linear, embedding=embedding, engine="x86")
    engine = torch.backends.quantized.engine
    with recipe.running():
        assert recipe.quantise(module) == changed
        after = module["layer"](module["table"](ids))
    assert torch.backends.quantized.engine == engine
    assert 0 < (after - before).abs().max() < 0.1 * before.abs().max()


def test_nothing_to_change_and_no_such_engine():
    with pytest.raises(AtomError, match="nothing to change in Conv2d"):
        legacy.build(linear=True, embedding=True, engine="x86").quantise(nn.Conv2d(1, 1, 1))
    with (
        pytest.raises(AtomError, match="no int8 engine 'abacus'"),
        legacy.build(linear=True, embedding=True, engine="abacus").running(),
    ):
        pass
