"""The study and its stages: refused, run twice at once, a training that is killed."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from command import command

from atom_repro.device.machine import this_machine
from atom_repro.records.record import load_records
from atom_repro.study.processes import die_with_parent

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def reproduce(folder, *arguments):
    return command(
        "eval.reproduce", "scale=smoke", "train.threads=1",
        f"paths.work={folder}/work", f"paths.results={folder}/results", *arguments,
    )  # fmt: skip


def records(folder):
    return load_records([folder / "results/records" / this_machine().fingerprint])


def test_a_killed_training_ends_with_the_weights_of_an_unbroken_one(tmp_path):
    settings = ["scale=smoke", "train.max_steps=8", "train.validation_every=4",
                "train.checkpoint_every=2", "train.threads=1"]  # fmt: skip
    weights = []
    for name in ("whole", "broken"):
        folder = tmp_path / name
        run = [
            "train.finetune", *settings,
            f"paths.work={folder}/work", f"paths.results={folder}/results",
        ]  # fmt: skip
        if name == "broken":
            process = subprocess.Popen(
                [sys.executable, "-m", *run],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            state = folder / "work/checkpoints/tiny_mplug2plus-toy-smoke-seed0/state/state.pt"
            deadline = time.monotonic() + 600
            while not state.is_file() and time.monotonic() < deadline:
                time.sleep(0.02)
            process.kill()
            process.wait()
            assert state.is_file(), "it was killed before its first state, or ended"
        done = command(*run)
        assert done.returncode == 0, done.stderr
        (record,) = [r for r in records(folder) if r.ok]
        weights.append(record.data["weights"])
        # Nothing says beside which other work the part before the kill ran.
        assert (record.values["train_s"] is None) == (name == "broken")
        steps = [s["step"] for s in record.samples() if "step_s" in s]
        assert steps == list(range(1, record.config("train.image_steps") + 9))
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train.max_stepz=1"], "no stage knows train.max_stepz; did you mean train.max_steps?"),
        (["train.max_steps=many"], "train.max_steps: value 'many'"),
    ],
)
def test_a_mistake_is_refused_before_any_work(tmp_path, arguments, said):
    done = reproduce(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not (tmp_path / "work").exists()


def test_a_stage_whose_study_is_gone_before_it_begins_does_not_begin():
    someone_else = os.getppid()
    done = subprocess.run(
        [sys.executable, "-c", "print('begun')"], preexec_fn=partial(die_with_parent, someone_else),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_two_studies_do_not_share_a_folder(tmp_path):
    import fcntl

    (tmp_path / "work").mkdir()
    with (tmp_path / "work/study.lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = reproduce(tmp_path)
    assert done.returncode == 1
    assert "another run (process 4711)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["eval.caption", "scale=smoke", "checkpoint.folder=/nowhere"], {}, "no checkpoint in"),
        (["eval.caption", "scale=smoke"], {"ATOM_JAVA": "/no/java"}, "/no/java"),
        (
            ["eval.caption", "scale=smoke", "from_predictions=/no/file.jsonl"],
            {},
            "from_predictions=/no/file.jsonl: no such file",
        ),
        (["eval.caption", "scale=smoke", "protocol.split=dev"], {}, "no split 'dev'"),
        (["train.finetune", "scale=systems"], {}, "train.max_steps=0 and train.epochs is not set"),
        (["device_bench.latency", "scale=smoke", "residencies=[forever]"], {}, "forever"),
        (["eval.pipeline", "videos=/nowhere", "prompt=a, b"], {}, "videos=/nowhere is no folder"),
        (["eval.pipeline", "videos=README.md", "prompt=a"], {}, "README.md is a file; name the"),
        (["eval.pipeline", "videos=tests"], {}, 'pipeline=assembly needs prompt="'),
        (["eval.pipeline", "videos=tests", "prompt=a"], {}, "tests contains no videos (other"),
        (["eval.pipeline", "videos={films}", "prompt=a"], {}, "no checkpoint in"),
        (
            ["eval.pipeline", "videos={films}", "prompt=a", "pipeline.candidates=0"],
            {},
            "candidates=0: must be at least 1",
        ),
        (["eval.pipeline", "--prompt", "a dog"], {}, "settings have no dashes; write prompt='a d"),
    ],
)
def test_bad_input_is_one_line(tmp_path_factory, arguments, environment, said):
    folder = tmp_path_factory.getbasetemp() / "bad-input"  # its data set serves all cases
    films = folder / "films"
    films.mkdir(parents=True, exist_ok=True)
    (films / "a.mp4").touch()
    arguments = [argument.replace("{films}", str(films)) for argument in arguments]
    done = command(*arguments, f"paths.work={folder}", f"paths.results={folder}/r", env=environment)
    assert done.returncode == 1
    (line,) = [t for t in done.stderr.splitlines() if t.startswith("error: ")]
    assert said in line
    assert "Traceback" not in done.stderr
