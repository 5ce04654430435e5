"""The runner with all that it needs, in one folder: loader, C and C++ libraries, ExecuTorch.

A phone has another C library, so the bundle brings its own and starts the program by its own
loader, which needs neither a toolkit for phones nor rights on them.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from atom_repro.datatypes import AtomError
from atom_repro.hosts.runner import executorch_package
from atom_repro.records.atomic import atomic_write

START = "run.sh"
_NEEDED = re.compile(r"\(NEEDED\)\s+Shared library: \[(.+)\]")
_INTERPRETER = re.compile(r"Requesting program interpreter: (.+)\]")


def write_bundle(program: Path, folder: Path, libraries: Sequence[Path], *, compiler: str) -> None:
    """Collect a program and its libraries.

    Args:
        folder: replaced as a whole.
        libraries: folders to look for libraries in, before the compiler's own.
        compiler: that made the program, which knows its C library.

    Raises:
        AtomError: a library is nowhere.
    """
    interpreter = _INTERPRETER.search(_readelf("-l", program))
    if interpreter is None:
        raise AtomError(f"{program} is no program that a loader starts")
    loader = Path(interpreter[1]).name
    with atomic_write(folder) as new:
        new.mkdir()
        shutil.copy(program, new / program.name)
        missing = [loader, *_NEEDED.findall(_readelf("-d", program))]
        while missing:
            name = missing.pop()
            if (new / name).exists():
                continue
            source = _find(name, libraries, compiler)
            shutil.copy(source, new / name)
            missing += _NEEDED.findall(_readelf("-d", source))
        (new / START).write_text(
            "#!/bin/sh\n"
            f"# Starts {program.name} by the loader beside it, which alone knows these libraries.\n"
            'here="$(cd "$(dirname "$0")" && pwd)"\n'
            "unset LD_PRELOAD\n"
            f'exec "$here/{loader}" --library-path "$here" "$here/{program.name}" "$@"\n',
            encoding="utf-8",
        )
        for path in new.iterdir():
            path.chmod(0o755)


def runner_bundle(program: Path) -> Path:
    """The bundle of the runner for this machine's processor, made beside it unless it is there."""
    bundle = program.parent / "bundle"
    if not bundle.is_dir():
        write_bundle(program, bundle, [executorch_package() / "lib"], compiler="g++")
    return bundle


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


def _readelf(option: str, path: Path) -> str:
    if shutil.which("readelf") is None:
        raise AtomError("readelf is missing; `apt install binutils`")
    done = subprocess.run(
        ["readelf", "-W", option, str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AtomError(f"{path} is no program or library ({done.stderr.strip()[:200]})")
    return done.stdout
