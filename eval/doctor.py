"""Check what this machine can run, what is missing, and how to get it (make doctor).

Looks, measures nothing longer than a second, changes nothing. Time estimates come from this
machine's own records.

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
from atom_repro.hosts.toolchain import compiler, missing_tools

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
    print(
        f"memory      {machine.memory_gib} GiB; tiny takes {cfg.tiny_memory_gb:g} GB, full size "
        f"{cfg.systems_memory_gb:g} GB"
    )
    if machine.memory_gib * 2**30 / 1e9 < cfg.tiny_memory_gb:
        problems.append("too little memory for scale=tiny; scale=smoke takes less")
    load = os.getloadavg()[0]
    print(f"load        {load:.1f} of {machine.cores} cores busy")
    if load > machine.cores / 4:
        problems.append("other work is running: latency records would measure it too")

    try:
        print(f"java        {java_version(find_java())}")
    except AtomError as error:
        problems.append(str(error))
    print("adb         carried by adbutils; phones are not measured by this version")
    for architecture in Architecture:
        if architecture.is_native:
            print(f"runner      {_runner(architecture)}")
        elif architecture is Architecture.AARCH64:
            print(f"arm64       {_runner(architecture)}")
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


def _runner(architecture: Architecture) -> str:
    """Whether the C++ runner for an architecture can be built and run here."""
    optional = "" if architecture.is_native else "optional: "
    if missing := missing_tools(architecture):
        return f"{optional}cannot be built, {missing}"
    built = f"can be built by cmake and {compiler(architecture)}"
    if architecture.is_native:
        return built
    return f"{built}; here {architecture.missing_emulator or f'{architecture.emulator} runs it'}"


def _gpu() -> str:
    if importlib.util.find_spec("torch") is None:
        return "unknown, torch is not installed"
    import torch

    if not torch.cuda.is_available():
        return "none; CPU is used"
    return f"{torch.cuda.get_device_name()}; training takes it, other commands with device=cuda"


if __name__ == "__main__":
    main()
