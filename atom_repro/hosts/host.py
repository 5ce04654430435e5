"""Protocol of a host: it runs one session of a pipeline, and returns what the session left.

Chosen by `conf/host`; a new host is a file here and one there. What measures, records and reports
knows this protocol only, so that a session in this process and one on another machine are measured
alike.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from atom_repro.datatypes import AtomError, Clip, Machine, Span
from atom_repro.device.machine import this_machine
from atom_repro.device.memory import MemoryUse
from atom_repro.runtime.runtime import Arm, Runtime
from atom_repro.runtime.setup import Setup

Result = TypeVar("Result")
ResultOf = TypeVar("ResultOf", covariant=True)


class Pipeline(Protocol[ResultOf]):
    """What a session runs: prompts over clips, one result each."""

    def run(self, runtime: Runtime, clips: Sequence[Clip]) -> Sequence[ResultOf]: ...


@dataclass(frozen=True)
class Trace(Generic[Result]):
    """What a session left.

    Attributes:
        results: of the pipeline; a session of prompts has one each, with its times on the clock
            of the session.
        spans: of the session's timeline.
        device_peak_bytes: peak memory of the device; None where the host's memory is all there is.
        memory_peak: of the session's processes; None where the system does not tell.
        measured: what else the host measured of the session, as values of a record: parts of its
            memory, energy, the state of a device.
    """

    results: Sequence[Result]
    spans: Sequence[Span]
    device_peak_bytes: int | None
    memory_peak: MemoryUse | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)

    @property
    def memory_peak_bytes(self) -> dict[str, int] | None:
        """The peaks by kind of memory, as values of a record."""
        return asdict(self.memory_peak) if self.memory_peak else None


class Host(Protocol):
    """Runs sessions."""

    @property
    def name(self) -> str:
        """The name of the host in `conf/host` and in records."""
        ...

    @property
    def machine(self) -> Machine:
        """The machine that sessions run on. Of a device that is not there this one, whose records
        say then what was wrong."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What a record says of the host, beside its name and machine."""
        ...

    def run(
        self, setup: Setup, pipeline: Pipeline[Result], clips: Sequence[Clip], arm: Arm
    ) -> Trace[Result]:
        """Run one session from its first load to its last release.

        Args:
            setup: whose modules exist.

        Raises:
            MemoryError: too little memory for a module or its work; a one-line message.
        """
        ...


def require_this_machine(host: Host) -> None:
    """Check that sessions compute where `limits=true` measures rates: with this processor.

    Raises:
        AtomError: they do so on a device over a cable, or on a stand-in for one.
    """
    if "device" in host.facts() or host.machine.fingerprint != this_machine().fingerprint:
        raise AtomError(
            f"limits=true measures the rates of this machine, and host={host.name} runs sessions "
            "on a device; set limits=false"
        )


def same_machine(hosts: Collection[Host], *, limits: bool = False) -> Machine:
    """The machine of hosts whose times are compared.

    Args:
        limits: whether they are also compared with this machine's rates.

    Raises:
        AtomError: they are of several, or of another one than is measured.
    """
    for host in hosts if limits else ():
        require_this_machine(host)
    machines = {host.name: host.machine for host in hosts}
    (first, machine), *others = machines.items()
    for name, other in others:
        if other.fingerprint != machine.fingerprint:
            raise AtomError(
                f"host={name} runs on {other.cpu} and host={first} on {machine.cpu}; what is "
                "compared runs on one machine"
            )
    return machine
