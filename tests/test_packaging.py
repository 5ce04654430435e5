"""What is no checkout is refused when it is built, and a checkout is not; the lock file and the
requirements agree on every platform that the README names."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytest.importorskip("setuptools.command.bdist_wheel")
ROOT = Path(__file__).resolve().parents[1]
PLATFORMS = [(python, machine) for python in (11, 12, 13) for machine in ("x86_64", "aarch64")]


def lock_lines():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


@pytest.mark.parametrize(("python", "machine"), PLATFORMS)
def test_what_is_required_is_locked_and_fits_on_every_platform(python, machine):
    environment = {
        "python_version": f"3.{python}", "python_full_version": f"3.{python}.0",
        "sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine,
    }  # fmt: skip

    def holds(requirement):
        return requirement.marker is None or requirement.marker.evaluate(environment)

    locked = {canonicalize_name(r.name): r for r in map(Requirement, lock_lines()) if holds(r)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = map(Requirement, project["dependencies"] + project["optional-dependencies"]["dev"])
    for requirement in filter(holds, required):
        pin = locked[canonicalize_name(requirement.name)]
        (version,) = (specifier.version for specifier in pin.specifier)
        assert requirement.specifier.contains(version), f"{requirement} is locked as {pin}"
    assert ("coremltools" in locked) == (machine == "x86_64")  # it has no wheel for the other


def test_every_version_is_pinned_and_make_lock_writes_the_markers_that_are_there():
    lines = lock_lines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+(; .+)?", line) for line in lines)
    (script,) = re.findall(r"^LOCK_MARKERS := (.+)$", (ROOT / "Makefile").read_text(), re.M)
    unmarked = "\n".join(line.partition(";")[0] for line in lines)
    written = subprocess.run(
        ["sed", "-E", script], input=unmarked, text=True, capture_output=True, check=True
    )
    assert written.stdout.split("\n") == lines


def test_a_wheel_is_refused_in_a_line_and_an_editable_one_is_built(tmp_path):
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "atom_repro").mkdir()
    shutil.copy(ROOT / "atom_repro/__init__.py", tmp_path / "atom_repro")
    code = "from setuptools import build_meta; build_meta.build_{}('out')"
    built = {
        kind: subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code.format(kind)], cwd=tmp_path, text=True,
            capture_output=True, check=False,
        )
        for kind in ("wheel", "editable")
    }  # fmt: skip
    assert built["wheel"].returncode == 1
    assert "error: atom-repro runs from its checkout" in built["wheel"].stderr
    assert built["editable"].returncode == 0, built["editable"].stderr
    assert [path.suffix for path in (tmp_path / "out").glob("*.whl")] == [".whl"]
