"""What a device is and how it is: model, processor, memory, battery, temperature."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from atom_repro.adb.connection import Connection
from atom_repro.datatypes import Machine
from atom_repro.device.machine import machine_from_cpuinfo, proc_fields

STANDIN_PROPERTY = "ro.boot.atom_standin"
_PROPERTY = re.compile(r"^\[([^\]]+)\]: \[(.*)\]$")
# Android's PowerManager: the first two do not slow anything down.
THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


@dataclass(frozen=True)
class DeviceFacts:
    """What does not change while a device is up.

    Attributes:
        standin: whether it is a stand-in on a computer, and no phone.
        clusters: cores by their highest frequency in kHz, fastest first.
    """

    manufacturer: str
    model: str
    soc: str
    android: str
    build: str
    abi: str
    kernel: str
    memory_bytes: int
    clusters: tuple[tuple[int, int], ...]
    standin: bool

    @property
    def title(self) -> str:
        """Maker, model and processor, as tables name the device."""
        model = self.model
        if self.manufacturer.lower() not in model.lower():
            model = f"{self.manufacturer} {model}"
        return f"{model}, {self.soc}" if self.soc else model

    def to_dict(self) -> dict[str, Any]:
        """The facts as values of a record."""
        return asdict(self)


@dataclass(frozen=True)
class DeviceState:
    """What changes. None where the device does not tell.

    Attributes:
        battery_percent, battery_celsius, charging: of the battery.
        thermal_status: 0 (none) to 6 (shutdown), as `dumpsys thermalservice` has it.
        zones_celsius: by the type of thermal zone.
        governors: of the cores, each named once.
        available_bytes: memory that a program could have.
    """

    battery_percent: int | None
    battery_celsius: float | None
    charging: bool | None
    thermal_status: int | None
    zones_celsius: Mapping[str, float]
    governors: tuple[str, ...]
    available_bytes: int | None

    @property
    def throttles(self) -> bool:
        """Whether the device says that it slows itself down."""
        return (self.thermal_status or 0) >= THERMAL_STATUS.index("moderate")

    def to_dict(self) -> dict[str, Any]:
        """The state as values of a record."""
        return asdict(self)


def device_facts(connection: Connection) -> DeviceFacts:
    """Probe what a device is."""
    properties = read_properties(connection.ask("getprop"))
    memory = _memory(connection.ask("cat /proc/meminfo"))
    frequencies = connection.shell(
        "cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq 2> /dev/null"
    ).text.split()
    cores = connection.ask("grep -c ^processor /proc/cpuinfo")
    by_frequency: dict[int, int] = {}
    for frequency in frequencies or ["0"] * int(cores):
        by_frequency[int(frequency)] = by_frequency.get(int(frequency), 0) + 1
    return DeviceFacts(
        manufacturer=properties.get("ro.product.manufacturer", ""),
        model=properties.get("ro.product.model", ""),
        soc=properties.get("ro.soc.model") or properties.get("ro.board.platform", ""),
        android=properties.get("ro.build.version.release", ""),
        build=properties.get("ro.build.fingerprint", ""),
        abi=properties.get("ro.product.cpu.abi", ""),
        kernel=connection.ask("uname -r"),
        memory_bytes=memory["MemTotal"],
        clusters=tuple(sorted(by_frequency.items(), reverse=True)),
        standin=properties.get(STANDIN_PROPERTY) == "1",
    )


def device_machine(connection: Connection, facts: DeviceFacts) -> Machine:
    """The machine that a device is: by model and processor, not by its serial."""
    return machine_from_cpuinfo(
        proc_fields(connection.ask("cat /proc/cpuinfo")),
        cores=sum(cores for _, cores in facts.clusters),
        memory_gib=round(facts.memory_bytes / 2**30),
        os_release=f"Android {facts.android}",
        called=facts.title,
    )


_STATE = (
    "dumpsys battery",
    "dumpsys thermalservice",
    'for z in /sys/class/thermal/thermal_zone*; do echo "$(cat "$z/type") $(cat "$z/temp")"; done',
    "cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor",
    "cat /proc/meminfo",
)


def device_state(connection: Connection) -> DeviceState:
    """Probe how a device is now."""
    *dumps, zones, scaling, meminfo = connection.texts(_STATE)
    battery, thermal = map(_fields, dumps)
    governors, memory = scaling.split(), _memory(meminfo)
    level, tenths = _number(battery, "level"), _number(battery, "temperature")
    powered = [battery[key] for key in battery if key.endswith("powered")]
    return DeviceState(
        battery_percent=level,
        battery_celsius=None if tenths is None else tenths / 10,
        charging="true" in powered if powered else None,
        thermal_status=_number(thermal, "Thermal Status"),
        zones_celsius=dict(_zones(zones)),
        governors=tuple(dict.fromkeys(governors)),
        available_bytes=memory.get("MemAvailable"),
    )


def read_properties(text: str) -> dict[str, str]:
    """Properties as `getprop` lists them."""
    matches = (_PROPERTY.match(line) for line in text.splitlines())
    return {m[1]: m[2] for m in matches if m}


def _fields(text: str) -> dict[str, str]:
    """`name: value` lines; of a name that comes twice the first."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields


def _number(fields: Mapping[str, str], name: str) -> int | None:
    value = fields.get(name, "")
    return int(value) if value.lstrip("-").isdigit() else None


def _zones(text: str) -> list[tuple[str, float]]:
    """Type and temperature of each zone. Kernels give thousandths of a degree, some tenths or
    whole ones; sensors that are off give what no phone survives, and are left out."""
    zones = []
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if not name or not value.lstrip("-").isdigit():
            continue
        degrees = float(value)
        while abs(degrees) > 200:
            degrees /= 10
        if -40 < degrees < 130:
            zones.append((name, round(degrees, 1)))
    return zones


def _memory(text: str) -> dict[str, int]:
    """Bytes by name of /proc/meminfo."""
    fields = _fields(text)
    return {
        name: int(value.split()[0]) * 1024
        for name, value in fields.items()
        if value and value.split()[0].isdigit()
    }
