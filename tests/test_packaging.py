"""What is no checkout is refused when it is built, and a checkout is not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools.command.bdist_wheel")
ROOT = Path(__file__).resolve().parents[1]


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
