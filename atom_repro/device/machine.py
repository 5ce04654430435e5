"""Which machine this is: the fingerprint that keeps records of different machines apart."""

import hashlib
import os
import platform
from pathlib import Path

from atom_repro.datatypes import Machine


def this_machine() -> Machine:
    """The host, as Linux's /proc describes it.

    Memory is rounded to GiB and the CPU count is that which this process may use, so that a
    reboot or a kernel's reserve does not make another machine of it.
    """
    cpu = _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine()
    memory_kib = _field(Path("/proc/meminfo"), "MemTotal").split()
    memory_gib = round(int(memory_kib[0]) / 2**20) if memory_kib else 0
    cores = len(os.sched_getaffinity(0))
    os_release = _os_release()
    text = "\n".join((cpu, str(cores), str(memory_gib), os_release))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Machine(digest, cpu, cores, memory_gib, os_release)


def _field(path: Path, name: str) -> str:
    if not path.is_file():
        return ""
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _os_release() -> str:
    path = Path("/etc/os-release")
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.split("=", 1)[1].strip('"')
    return f"{platform.system()} {platform.release()}"
