"""Every command of the README runs; long ones are shrunk by scale=smoke.

`make setup`, `make check` and `make test` are what `.ci/run` itself calls on a clean checkout.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = re.findall(r"^    ((?:make|python -m) .*)$", (ROOT / "README.md").read_text(), re.M)
RUN_BY_CI = ("make setup", "make check", "make test")
NEED_DATA = ("make table7", "make oracle")
NEED_WEIGHTS = ("python -m train.convert",)
DATA = ROOT.parent / "shared/data"
SCALED = (
    "train.finetune", "eval.caption", "eval.retrieval", "eval.tasks", "eval.pipeline",
    "device_bench.latency", "device_bench.sessions", "device_bench.endurance",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def shrunk(command: str, folder: Path) -> list[str]:
    """The command as the README has it, with folders of its own and, where it is long, smoke."""
    for long, short in (
        ("max_steps=200", "max_steps=5"),
        ("repeats=10", "repeats=1"),
        ("model=mplug2plus", "model=tiny_mplug2plus"),
        ("videos=DIR", f"videos={folder}/videos"),
    ):
        command = command.replace(long, short)
    words = shlex.split(command)
    paths = [f"paths.work={folder}/work", f"paths.results={folder}/results"]
    if words[0] == "make":
        given = next((w.removeprefix("ARGS=") for w in words if w.startswith("ARGS=")), "")
        study = words[1] in ("reproduce", "smoke")
        scale = ["scale=smoke", "train.threads=1"] if study else []
        words = [w for w in words if not w.startswith("ARGS=")]
        if words[1] == "help":
            return words
        return [*words, f"PYTHON={sys.executable}", "ARGS=" + " ".join([given, *scale, *paths])]
    scale = ["scale=smoke"] if words[2] in SCALED else []
    scale += ["train.threads=1"] if words[2] == "train.finetune" else []
    return [sys.executable, *words[1:], *scale, *paths]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if not c.startswith(RUN_BY_CI + NEED_DATA + NEED_WEIGHTS)]
)
def test_command(command, folder):
    # The study comes first whatever the README's order, so that each command finds its inputs.
    if not (folder / "results/records").exists():
        first = shrunk("make reproduce", folder)
        done = subprocess.run(first, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "videos").mkdir()
        for video in sorted((folder / "work/data").glob("toy-*/videos/*.mp4"))[:2]:
            shutil.copy(video, folder / "videos")
    words = shrunk(command, folder)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(NEED_WEIGHTS)])
def test_a_command_without_its_weights_says_what_to_bring(command):
    words = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "sources." in line


@pytest.mark.slow
@pytest.mark.parametrize("command", NEED_DATA)
def test_a_command_without_its_data_says_what_to_bring(command, folder):
    done = subprocess.run(
        shrunk(command, folder), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2  # make's own
    (line,) = [t for t in done.stderr.splitlines() if t.startswith("error: ")]
    assert "stsb-en-test.csv" in line or "eval.data_check" in line


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the annotation files are not beside this checkout")
def test_the_oracle_runs_on_one_protocol(folder):
    words = shrunk("make oracle ARGS=only=[didemo/ret-paragraph]", folder)
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"ATOM_DATA": str(DATA)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_names_every_target():
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    named = {shlex.split(c)[1] for c in COMMANDS if c.startswith("make")}
    assert set(targets) - named <= {"lock", "clean"}
