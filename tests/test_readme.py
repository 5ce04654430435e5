"""Every command of the README runs, on one study; long ones are shrunk by scale=smoke.

The study comes first: killed at five stages and run again, it is whole, and what it made serves the
commands. `make setup`, `make check` and `make test` are what `.ci/run` calls on a clean checkout.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from atom_repro.device.machine import this_machine
from atom_repro.records.record import load_records

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = re.findall(r"^    ((?:make|python -m) .*)$", (ROOT / "README.md").read_text(), re.M)
RUN_BY_CI = ("make setup", "make check", "make test")
WHOLE, NARROWS = "make reproduce", 'make reproduce ARGS="quant=int8 train.max_steps=200"'
RUN_APART = (WHOLE,)  # NARROWS begins like it
NEEDS_GPU = "device=cuda"
NEED_DATA = ("make table7", "make oracle")
NEED_WEIGHTS = ("python -m train.convert",)
DATA = ROOT.parent / "shared/data"
SCALED = (
    "train.finetune", "eval.caption", "eval.retrieval", "eval.tasks", "eval.pipeline",
    "device_bench.latency", "device_bench.sessions", "device_bench.endurance",
    "device_bench.training_step",
)  # fmt: skip
STAGES = {"finetune": 1, "caption": 2, "retrieval": 2, "tasks": 2, "latency": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a study that was killed at five stages and then finished, and two videos."""
    folder = tmp_path_factory.mktemp("readme")
    for line in (
        "[1/",  # while it makes the data set
        "loss ",  # in the middle of training
        "eval.caption quant=none",
        "eval.retrieval quant=int8",
        "device_bench.latency quant=none",
    ):
        kill_after(folder, line)
    assert "tables in" in finish(folder)
    (folder / "videos").mkdir()
    for video in sorted((folder / "work/data").glob("toy-*/videos/*.mp4"))[:2]:
        shutil.copy(video, folder / "videos")
    return folder


def study(folder):
    return [
        sys.executable, "-m", "eval.reproduce", "scale=smoke", "train.threads=1",
        f"paths.work={folder}/work", f"paths.results={folder}/results",
    ]  # fmt: skip


def shrunk(command: str, folder: Path) -> list[str]:
    """The command as the README has it, with folders of its own and, where it is long, smoke."""
    for long, short in (
        ("max_steps=200", "max_steps=5"),
        ("repeats=10", "repeats=1"),
        (
            "sessions pipeline=assembly",
            "sessions pipeline=assembly residencies=[resident,reload_stage]",
        ),
        ("model=mplug2plus", "model=tiny_mplug2plus"),
        ("latency/full_size", "latency/full_size model=tiny_mplug2plus"),
        ("device_bench.training_step", "device_bench.training_step most_clips=2"),
        ("videos=DIR", f"videos={folder}/videos"),
    ):
        command = command.replace(long, short)
    words = shlex.split(command)
    paths = [f"paths.work={folder}/work", f"paths.results={folder}/results"]
    if words[0] == "make":
        given = next((w.removeprefix("ARGS=") for w in words if w.startswith("ARGS=")), "")
        scale = {
            "reproduce": ["scale=smoke", "train.threads=1"],
            "smoke": ["quant=none", "train.threads=1"],
            "systems": ["model=tiny_mplug2plus", "job_clips=2", "repeats=1"],
        }.get(words[1], [])
        words = [w for w in words if not w.startswith("ARGS=")]
        if words[1] == "help":
            return words
        return [*words, f"PYTHON={sys.executable}", "ARGS=" + " ".join([given, *scale, *paths])]
    scale = ["scale=smoke"] if words[2] in SCALED else []
    scale += ["train.threads=1"] if words[2] == "train.finetune" else []
    return [sys.executable, *words[1:], *scale, *paths]


def run(words):
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def finish(folder):
    return run(study(folder))


def records(folder):
    return load_records(folder / "results/records" / this_machine().fingerprint)


def keys(folder):
    return sorted((r.stage, r.data["key"]) for r in records(folder) if r.ok)


def kill_after(folder, line):
    """Start the study, SIGKILL it once `line` stands in its output, and wait for its stages."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            study(folder), cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 900
            while line not in (folder / "log").read_text():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, f"no {line!r} in 900 s"
                time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGKILL)  # the study only: its stage must not outlive it
            process.wait()
    for _ in range(100):
        if not _alive(process.pid):
            return
        time.sleep(0.05)
    pytest.fail("a stage outlived its study")


def _alive(session):
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            return True
    return False


@pytest.mark.slow
def test_a_killed_study_is_whole_and_does_nothing_twice(folder):
    made = records(folder)
    stages = [r.stage for r in made]
    assert {s: stages.count(s) for s in STAGES} == STAGES
    assert all(r.ok for r in made)
    before = keys(folder)

    # A smoke record fills no table.
    table = folder / "results/local" / this_machine().fingerprint / "tables/table01.md"
    assert "No record of ours yet" in table.read_text()

    # Deleted results come back, and nothing else is measured again: of each stage that is run
    # more than once, one run at least is left.
    deleted = [
        r
        for r in made
        if (r.stage, r.values.get("precision")) in (("caption", "fp32"), ("retrieval", "int8"))
    ]
    assert len(deleted) == 2
    for record in deleted:
        for path in record.folder.iterdir():
            path.unlink()
        record.folder.rmdir()
    out = run(shrunk(WHOLE, folder))
    assert keys(folder) == before
    assert out.count("unchanged") == sum(STAGES.values()) - len(deleted)
    kept = {r.folder for r in made} - {r.folder for r in deleted}
    assert kept < {r.folder for r in records(folder)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        c
        for c in COMMANDS
        if not c.startswith(RUN_BY_CI + NEED_DATA + NEED_WEIGHTS + RUN_APART)
        and (torch.cuda.is_available() or NEEDS_GPU not in c)
    ],
)
def test_command(command, folder):
    run(shrunk(command, folder))


@pytest.mark.slow
def test_an_override_narrows_the_study(folder):
    earlier = {r.run_id for r in records(folder)}
    run(shrunk(NARROWS, folder))
    made = [r for r in records(folder) if r.run_id not in earlier]
    assert [r.values["precision"] for r in made if r.stage != "finetune"] == ["int8"] * 5
    (trained,) = [r for r in made if r.stage == "finetune"]
    assert trained.config("train.max_steps") == 5


def test_what_is_run_apart_stands_in_the_readme():
    assert {WHOLE, NARROWS} <= set(COMMANDS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(NEED_WEIGHTS)])
def test_a_command_without_its_weights_says_what_to_bring(command):
    words = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "sources." in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", [c for c in COMMANDS if NEEDS_GPU in c])
def test_a_command_without_its_gpu_says_what_to_do(command, tmp_path):
    done = subprocess.run(
        shrunk(command, tmp_path), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    (line,) = [t for t in done.stderr.splitlines() if t.startswith("error: ")]
    assert "sees 0 GPUs" in line
    assert "device=cpu" in line


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
    words = shrunk("make oracle ARGS=only=[msrvtt/ret-1ka]", folder)
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"ATOM_DATA": str(DATA)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_names_every_target():
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    named = {shlex.split(c)[1] for c in COMMANDS if c.startswith("make")}
    assert set(targets) - named <= {"lock", "clean"}
