"""Which machine sessions run on, and whether what is measured here applies to them."""

import dataclasses

import pytest

from atom_repro.datatypes import AtomError
from atom_repro.device.machine import this_machine
from atom_repro.hosts import in_process
from atom_repro.hosts.host import require_this_machine, same_machine


class Phone:
    """A host whose sessions run on a device."""

    name = "pixel_8a"

    def __init__(self, machine, facts):
        self.machine, self._facts = machine, facts

    def facts(self):
        return self._facts


HERE = in_process.build()
ELSEWHERE = dataclasses.replace(this_machine(), fingerprint="f00dcafe0000", cpu="Tensor G3")


@pytest.mark.parametrize(
    ("machine", "facts"),
    [(ELSEWHERE, {}), (this_machine(), {"device": {"standin": True}})],
    ids=["a phone", "a stand-in, which computes here but behind a cable"],
)
def test_rates_of_this_machine_bound_nothing_on_a_device(machine, facts):
    require_this_machine(HERE)
    with pytest.raises(AtomError, match=r"host=pixel_8a runs .* on a device; set limits=false"):
        require_this_machine(Phone(machine, facts))
    with pytest.raises(AtomError, match="limits=false"):
        same_machine([Phone(machine, facts)], limits=True)
    assert same_machine([Phone(machine, facts)]) == machine


def test_times_of_two_machines_are_not_compared():
    assert same_machine([HERE, HERE], limits=True) == this_machine()
    with pytest.raises(AtomError, match="host=pixel_8a runs on Tensor G3 and host=in_process on"):
        same_machine([HERE, Phone(ELSEWHERE, {})])
