"""Machine description and fingerprint, which keeps records of different machines apart."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from atom_repro.datatypes import Machine

# CPU features that affect timings: /proc/cpuinfo flag to vendor name; x86, then Arm.
INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX-512-BF16",
    "avx512_fp16": "AVX-512-FP16",
    "amx_tile": "AMX",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "asimd": "NEON",
    "asimddp": "DOTPROD",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
    "sve2": "SVE2",
    "sme": "SME",
}


def this_machine() -> Machine:
    """Description of the host, from Linux's /proc.

    Memory is rounded to GiB and the CPU count is the cores that this process may use, so that a
    reboot or memory reserved by the kernel does not change the fingerprint.
    """
    memory = _proc_fields(Path("/proc/meminfo"))
    memory_kib = memory[0].get("MemTotal", "0 kB") if memory else "0 kB"
    return machine_from_cpuinfo(
        _proc_fields(Path("/proc/cpuinfo")),
        cores=_cores(),
        memory_gib=round(int(memory_kib.split()[0]) / 2**20),
        os_release=_os_release(),
    )


def machine_from_cpuinfo(
    processors: list[Mapping[str, str]],
    *,
    cores: int,
    memory_gib: int,
    os_release: str,
    called: str = "",
) -> Machine:
    """Machine from the processors in /proc/cpuinfo, which may differ in kind (as on phones).

    Args:
        processors: one mapping per processor, field name to value.
        called: the name of a machine that is not this one.
    """

    def distinct(*names: str) -> str:
        """Distinct values of the fields over all processors, in order."""
        values = ["/".join(p[n] for n in names if n in p) for p in processors]
        return " + ".join(dict.fromkeys(v for v in values if v)) or "unknown"

    flags = set(distinct("flags", "Features").split())
    name = distinct("model name")
    machine = Machine(
        fingerprint="",
        cpu=called or (name if name != "unknown" else platform.processor() or platform.machine()),
        family=distinct("cpu family", "CPU implementer"),
        model=distinct("model", "CPU part"),
        stepping=distinct("stepping", "CPU variant", "CPU revision"),
        instructions=tuple(label for flag, label in INSTRUCTION_SETS.items() if flag in flags),
        cores=cores,
        memory_gib=memory_gib,
        os_release=os_release,
    )
    text = json.dumps(machine.to_dict(), sort_keys=True)
    return replace(machine, fingerprint=hashlib.sha256(text.encode()).hexdigest()[:12])


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _proc_fields(path: Path) -> list[Mapping[str, str]]:
    """Fields of each block of a /proc file; blocks are separated by blank lines."""
    return proc_fields(path.read_text(encoding="utf-8")) if path.is_file() else []


def proc_fields(content: str) -> list[Mapping[str, str]]:
    """Fields of each block of the text of a /proc file."""
    blocks: list[Mapping[str, str]] = []
    for text in content.split("\n\n"):
        pairs = (line.partition(":") for line in text.splitlines())
        if fields := {key.strip(): value.strip() for key, _, value in pairs if key.strip()}:
            blocks.append(fields)
    return blocks


def _os_release() -> str:
    path = Path("/etc/os-release")
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.split("=", 1)[1].strip('"')
    return f"{platform.system()} {platform.release()}"
