"""The runner with all that it needs, in one folder: loader, C and C++ libraries, ExecuTorch.

A phone has another C library, so the bundle brings its own and starts the program by its own
loader, which needs neither a toolkit for phones nor rights on them.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atom_repro.datatypes import AtomError
from atom_repro.device.architecture import LAUNCHER, Architecture
from atom_repro.hosts import toolchain
from atom_repro.hosts.runner import build_runner
from atom_repro.records.atomic import atomic_write

START = "run.sh"
_NEEDED = re.compile(r"\(NEEDED\)\s+Shared library: \[(.+)\]")
_INTERPRETER = re.compile(r"Requesting program interpreter: (.+)\]")
_SEGMENT = re.compile(r"^ +LOAD .* (0x[0-9a-f]+)$", re.MULTILINE)
_MACHINE = re.compile(r"^ +Machine: +(.+)$", re.MULTILINE)
_MACHINES = {
    Architecture.X86_64: "Advanced Micro Devices X86-64",
    Architecture.AARCH64: "AArch64",
}


def write_bundle(
    program: Path, folder: Path, libraries: Sequence[Path], architecture: Architecture
) -> None:
    """Collect a program and its libraries, and check them; see `check_bundle`.

    Args:
        folder: replaced as a whole.
        libraries: folders to look for libraries in, before the compiler's own.

    Raises:
        AtomError: a library is nowhere, or would not load on a device.
    """
    elf = _Elf.read(program)
    if not elf.interpreter:
        raise AtomError(f"{program} is no program that a loader starts")
    loader = Path(elf.interpreter).name
    compiler = toolchain.compiler(architecture)
    with atomic_write(folder) as new:
        new.mkdir()
        shutil.copy(program, new / program.name)
        missing = [loader, *elf.needed]
        while missing:
            name = missing.pop()
            if (new / name).exists():
                continue
            source = _find(name, libraries, compiler)
            shutil.copy(source, new / name)
            missing += _Elf.read(source).needed
        check_bundle(new, architecture)
        (new / START).write_text(
            "#!/bin/sh\n"
            f"# Starts {program.name} by the loader beside it, which alone knows these libraries.\n"
            f"# {LAUNCHER} starts the loader where the processor is another.\n"
            'here="$(cd "$(dirname "$0")" && pwd)"\n'
            "unset LD_PRELOAD\n"
            f'exec ${LAUNCHER} "$here/{loader}" --library-path "$here" "$here/{program.name}" '
            '"$@"\n',
            encoding="utf-8",
        )
        for path in new.iterdir():
            path.chmod(0o755)


def check_bundle(folder: Path, architecture: Architecture) -> None:
    """Check that a device with pages of any size, and with nothing but the folder, can load each
    of its files.

    Raises:
        AtomError: a file is of another architecture, or needs a library that is not there; its
            segments are aligned to less than the largest page; its text is changed when it is
            loaded, which Android refuses.
    """
    for path in sorted(folder.iterdir()):
        if path.name == START:
            continue
        elf, problem = _Elf.read(path), ""
        if elf.machine != _MACHINES[architecture]:
            problem = f"is for {elf.machine}, not for {architecture}"
        elif missing := [name for name in elf.needed if not (folder / name).is_file()]:
            problem = f"needs {missing[0]}, which is not there"
        elif min(elf.alignments) < architecture.largest_page_bytes:
            problem = (
                f"has a segment that is aligned to {min(elf.alignments)} bytes; "
                f"{architecture} has pages of {architecture.largest_page_bytes}"
            )
        elif elf.text_relocations:
            problem = "has text relocations, which Android does not load"
        if problem:
            raise AtomError(f"{path.name} {problem}; it cannot be part of the runner's bundle")


def bundle_bytes(folder: Path) -> int:
    """The size of a bundle."""
    return sum(path.stat().st_size for path in folder.iterdir())


def runner_bundle(folder: Path, architecture: Architecture | None = None) -> Path:
    """The bundle of the runner, built and made unless it is there; its size is printed then.

    Args:
        folder: of builds; see `build_runner`.
        architecture: of the processor that it is for; None for this machine's.
    """
    architecture = architecture or Architecture.of_this_machine()
    program = build_runner(folder, architecture)
    bundle = program.parent / "bundle"
    if not bundle.is_dir():
        libraries = toolchain.executorch_package(architecture, folder) / "lib"
        write_bundle(program, bundle, [libraries], architecture)
        sys.stderr.write(
            f"runner for {architecture}: {bundle_bytes(bundle) / 1e6:.1f} MB in "
            f"{len(list(bundle.iterdir()))} files, {bundle}\n"
        )
    return bundle


@dataclass(frozen=True)
class _Elf:
    """What binutils reads of a program or library."""

    machine: str
    interpreter: str
    needed: tuple[str, ...]
    alignments: tuple[int, ...]
    text_relocations: bool

    @classmethod
    def read(cls, path: Path) -> "_Elf":
        done = subprocess.run(
            ["readelf", "--wide", "--file-header", "--program-headers", "--dynamic", str(path)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},  # its words depend on the language
        )
        machine, text = _MACHINE.search(done.stdout), done.stdout
        alignments = tuple(int(number, 16) for number in _SEGMENT.findall(text))
        if done.returncode or not machine or not alignments:
            raise AtomError(f"{path} is no program or library ({done.stderr.strip()[:200]})")
        interpreter = _INTERPRETER.search(text)
        return cls(
            machine=machine[1],
            interpreter=interpreter[1] if interpreter else "",
            needed=tuple(_NEEDED.findall(text)),
            alignments=alignments,
            text_relocations="TEXTREL" in text,
        )


def _find(name: str, libraries: Sequence[Path], compiler: str) -> Path:
    for folder in libraries:
        if (folder / name).is_file():
            return folder / name
    done = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    found = Path(done.stdout.strip())
    if not found.is_absolute():  # what it does not know it gives back as it was
        raise AtomError(f"{compiler} has no {name}, which the runner needs")
    return found.resolve()
