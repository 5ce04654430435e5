"""What the runner is built with: CMake, a compiler, ExecuTorch's headers and libraries.

For this machine's processor ExecuTorch is the installed package; for another it is the package's
wheel for that one, fetched once. The compilers are Debian's.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from atom_repro.datatypes import AtomError
from atom_repro.device.architecture import Architecture
from atom_repro.records.atomic import atomic_write

# What a program is compiled and linked against; the rest of the wheel is Python's.
_WHEEL_FOLDERS = ("executorch/include/", "executorch/lib/", "executorch/share/")


def compiler(architecture: Architecture) -> str:
    """The C++ compiler for an architecture, by Debian's name."""
    return "g++" if architecture.is_native else f"{architecture}-linux-gnu-g++"


def cmake() -> str | None:
    """The path of CMake: of this environment, else of the system."""
    own = Path(sys.executable).parent  # PATH has it only where the environment is activated
    return shutil.which("cmake", path=f"{own}{os.pathsep}{os.environ.get('PATH', os.defpath)}")


def missing_tools(architecture: Architecture) -> str | None:
    """What is missing to build the runner, and how to get it; None if nothing is."""
    packages = {
        "cmake": ("cmake", cmake()),
        compiler(architecture): (_package(architecture), shutil.which(compiler(architecture))),
        "readelf": ("binutils", shutil.which("readelf")),
    }
    missing = {tool: package for tool, (package, path) in packages.items() if path is None}
    if not missing:
        return None
    return f"no {' and no '.join(missing)}; `apt install {' '.join(missing.values())}`"


def readiness(architecture: Architecture) -> str:
    """Whether the runner for an architecture can be built and run here, for a reader."""
    optional = "" if architecture.is_native else "optional: "
    if missing := missing_tools(architecture):
        return f"{optional}cannot be built, {missing}"
    built = f"can be built by cmake and {compiler(architecture)}"
    if architecture.is_native:
        return built
    return f"{built}; here {architecture.missing_emulator or f'{architecture.emulator} runs it'}"


def executorch_package(architecture: Architecture, folder: Path) -> Path:
    """The folder of the executorch package for an architecture: headers, libraries, CMake files.

    Args:
        folder: where a fetched one is kept, under its version and architecture.

    Raises:
        AtomError: it is not installed, or cannot be fetched.
    """
    found = importlib.util.find_spec("executorch")
    if found is None or not found.submodule_search_locations:
        raise AtomError("the runner is built against executorch; `pip install executorch==1.5.1`")
    if architecture.is_native:
        return Path(next(iter(found.submodule_search_locations)))
    version = metadata.version("executorch").partition("+")[0]
    package = folder / f"executorch-{version}-{architecture}"
    if not package.is_dir():
        with atomic_write(package) as new, tempfile.TemporaryDirectory() as downloads:
            wheel = _fetch(version, architecture, Path(downloads))
            with zipfile.ZipFile(wheel) as archive:
                names = [n for n in archive.namelist() if n.startswith(_WHEEL_FOLDERS)]
                archive.extractall(new, names)
    return package / "executorch"


def _package(architecture: Architecture) -> str:
    """Debian's package of the compiler."""
    if architecture.is_native:
        return "g++"
    return f"g++-{architecture.replace('_', '-')}-linux-gnu"


def _fetch(version: str, architecture: Architecture, folder: Path) -> Path:
    """Download the wheel of executorch for an architecture, as pip is configured to."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [
        sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet",
        "--retries", "2", "--no-deps", "--only-binary=:all:", "--dest", str(folder),
        "--platform", f"manylinux_2_28_{architecture}", "--python-version", python,
        f"executorch=={version}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise AtomError(
            f"executorch {version} for {architecture} cannot be fetched ({reason[:200]}); connect "
            "to the package index, or give pip a folder with its wheel (PIP_FIND_LINKS)"
        )
    return wheels[0]
