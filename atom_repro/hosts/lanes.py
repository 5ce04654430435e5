"""The devices of a sweep: which hosts it measures at once, each with overrides of its own."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from atom_repro import config
from atom_repro.adb.connection import serials
from atom_repro.adb.faults import Unauthorised
from atom_repro.datatypes import AtomError
from atom_repro.hosts.device_runs import clean_up
from atom_repro.hosts.phone import Phone, choose_device

AUTO, STANDIN = "auto", "standin"


def device_lanes(
    primary: str, hosts: Sequence[str], *, planned: bool = False
) -> dict[str, list[str]]:
    """Overrides of each device by its name.

    Args:
        primary: configuration of the command that is run on them.
        hosts: names in `conf/host`. `auto` is every device that adb sees; `standin` as often as it
            is named, each a device of its own.
        planned: whether nothing will be run, for which no device has to be there.

    Raises:
        AtomError: no host, one that is named twice, or its device is not there.
    """
    if not hosts:
        raise AtomError("hosts is empty; name one of conf/host, such as hosts=[auto]")
    lanes: dict[str, list[str]] = {}
    named = Counter[str]()
    for host in hosts:
        named[host] += 1
        if host == STANDIN:
            lanes[f"{host}-{named[host]}"] = [f"host={host}", f"host.number={named[host]}"]
            continue
        if named[host] > 1:
            raise AtomError(f"hosts names {host} twice; only stand-ins are many")
        models = _models(primary, host)
        if models is None or planned:
            lanes[host] = [f"host={host}"]
            continue
        try:
            ready = serials() if host == AUTO else []
            ready = ready or [choose_device("", models)]
        except Unauthorised:  # its points say so in their records
            lanes[host] = [f"host={host}"]
            continue
        for serial in ready:
            lanes[f"{host} {serial}"] = [f"host={host}", f"host.serial='{serial}'"]
    return lanes


def clean_up_devices(primary: str, lanes: Mapping[str, Sequence[str]]) -> list[str]:
    """Remove from each device what was sent there and what ran there left; return their names.

    Args:
        lanes: as `device_lanes` gave them.

    Raises:
        DeviceError: a device cannot be reached.
    """
    cleaned = []
    for name, overrides in lanes.items():
        host: Any = config.build(config.compose(primary, [*overrides]).host)
        if isinstance(host, Phone):
            with host.connected() as connection:
                clean_up(connection)
            cleaned.append(name)
    return cleaned


def _models(primary: str, host: str) -> list[str] | None:
    """The models that a host is for; None for one that is no device over adb."""
    node: dict[str, Any] = config.to_dict(config.compose(primary, [f"host={host}"]))["host"]
    return node.get("models")
