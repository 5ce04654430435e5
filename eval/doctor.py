"""Check what this machine can run, what is missing, and how to get it (make doctor).

Looks, measures nothing longer than a second, changes nothing. Times are estimated from records.

    python -m eval.doctor
"""

import importlib.util
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from atom_repro.config import entry
from atom_repro.datatypes import AtomError
from atom_repro.device.architecture import Architecture
from atom_repro.hosts.toolchain import readiness

LOCK = Path("requirements.lock")


@entry("doctor")
def main(cfg: Any) -> None:
    from atom_repro.device.machine import this_machine
    from atom_repro.metrics.java import find_java, java_version
    from atom_repro.records.reference import reference_machines
    from atom_repro.study.overrides import plan_stages, quoted
    from atom_repro.study.plan import duration, total_time

    machine = this_machine()
    print(f"machine     {machine.fingerprint}: {machine}")
    if machine.fingerprint in reference_machines(Path(cfg.paths.results)):
        print(f"results     {cfg.paths.results}/tables, as a reference machine")
    else:
        print(f"results     {cfg.paths.results}/local/{machine.fingerprint}/tables")
    print(f"python      {platform.python_version()} in {sys.prefix}")
    problems = []

    # Packages: what is installed against what the lock file pins.
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if "==" in line and line[0] != "#"]
    pinned = {
        r.name: str(r.specifier).removeprefix("==")
        for r in requirements
        if r.marker is None or r.marker.evaluate()
    }
    installed = {d.name.lower().replace("_", "-"): d.version for d in metadata.distributions()}
    other = [
        f"{name} {installed.get(name.lower().replace('_', '-'), 'missing')} (pinned {version})"
        for name, version in pinned.items()
        if installed.get(name.lower().replace("_", "-"), "").split("+")[0] != version
    ]
    print(f"packages    {len(pinned) - len(other)} of {len(pinned)} as pinned")
    if other:
        problems.append(f"packages differ from requirements.lock: {', '.join(other)}; make setup")

    fast = installed.get("executorch")
    print(f"engines     eager, {f'executorch {fast}' if fast else 'no executorch (no wheel here)'}")

    # Disk and memory against what the scales need.
    work = Path(cfg.paths.work)
    existing = next(p for p in (work, *work.absolute().parents) if p.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    print(
        f"disk        {free_gb:.0f} GB free at {existing}; tiny takes {cfg.tiny_disk_gb:g} GB, "
        f"full size (make systems) {cfg.systems_disk_gb:g} GB"
    )
    if free_gb < cfg.tiny_disk_gb:
        problems.append(f"too little disk at {existing}; free some or set ATOM_WORK")
    needs = f"tiny takes {cfg.tiny_memory_gb:g} GB, full size {cfg.systems_memory_gb:g} GB"
    print(f"memory      {machine.memory_gib} GiB; {needs}")
    if machine.memory_gib * 2**30 / 1e9 < cfg.tiny_memory_gb:
        problems.append("too little memory for scale=tiny; scale=smoke takes less")
    print(f"load        {os.getloadavg()[0]:.1f} of {machine.cores} cores busy")
    if os.getloadavg()[0] > machine.cores / 4:
        problems.append("other work is running: latency records would measure it too")

    try:
        print(f"java        {java_version(find_java())}")
    except AtomError as error:
        problems.append(str(error))
    adb = shutil.which("adb") or (platform.machine() == "x86_64" and "carried by adbutils")
    print(f"adb         {adb or 'none; `apt install adb`'}, for make device-bench HOST=auto")
    for architecture in sorted(Architecture, key=lambda one: not one.is_native):
        print(
            f"{'runner' if architecture.is_native else architecture:11} {readiness(architecture)}"
        )
    print(f"gpu         {_gpu()}")

    # How long the stages of make reproduce take, from the records of a processor like this one.
    stages = plan_stages("reproduce", [f"paths.results={quoted(cfg.paths.results)}"])
    seconds, unknown, measured = total_time(stages, machine)
    if unknown == measured:
        print(f"reproduce   not known: no record on {machine.processor}; it shows its progress")
    else:
        missing = f", and {unknown} of {measured} stages more" if unknown else ""
        print(f"reproduce   about {duration(seconds)}{missing}, from records of this processor")
    print("data sets   toy (generated); the paper's videos and weights are yours to bring")
    for problem in problems:
        print(f"! {problem}")
    print("ready" if not problems else f"{len(problems)} things to look at")


def _gpu() -> str:
    if importlib.util.find_spec("torch") is None:
        return "unknown, torch is not installed"
    import torch

    if not torch.cuda.is_available():
        return "none; CPU is used"
    return f"{torch.cuda.get_device_name()}; training takes it, other commands with device=cuda"


if __name__ == "__main__":
    main()
