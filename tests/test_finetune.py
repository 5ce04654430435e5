"""A training as a user runs it, in one process and in two."""

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from command import command

from atom_repro.device.machine import this_machine
from atom_repro.records.record import load_records

ROOT = Path(__file__).resolve().parents[1]

# A machine with a GPU trains these on its processor, too; one without needs no word for it.
ON_CPU = {"ACCELERATE_USE_CPU": "true"} if torch.cuda.is_available() else {}
# glibc gives freed memory back at once, so that what is measured is what was in use; it reads this
# when a program starts, so a forked command does not.
MEASURED = ON_CPU | {"MALLOC_MMAP_THRESHOLD_": "65536"}


class Training:
    """Runs trainings in processes of their own. The data set is made once."""

    def __init__(self, folder):
        self._folder, self._runs = folder, 0

    def folder(self):
        """For the modules and records of a training."""
        self._runs += 1
        return self._folder / f"run{self._runs}"

    def arguments(self, folder, *more, steps):
        return (
            "train.finetune", "scale=smoke", "train.threads=1",
            "train.precision=fp32", "train.image_steps=2", f"train.max_steps={steps}",
            f"train.validation_every={steps}", f"paths.work={self._folder / 'work'}",
            f"paths.results={folder}", f"checkpoint.folder={folder / 'modules'}", *more,
        )  # fmt: skip

    def start(self, folder, *more, steps, launcher):
        """A training in several processes."""
        return subprocess.Popen(
            [sys.executable, *launcher, "-m", *self.arguments(folder, *more, steps=steps)],
            cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | MEASURED,
        )  # fmt: skip

    def __call__(self, *more, steps=10, launcher=(), folder=None):
        """The record of a training, which goes on with what `folder` has."""
        folder = folder or self.folder()
        if launcher:
            process = self.start(folder, *more, steps=steps, launcher=launcher)
            _, said = process.communicate()
            assert process.returncode == 0, said
        else:
            done = command(*self.arguments(folder, *more, steps=steps), env=ON_CPU)
            assert done.returncode == 0, done.stderr
        (record,) = load_records([folder / "records" / this_machine().fingerprint])
        return record


@pytest.fixture(scope="module")
def finetune(tmp_path_factory):
    return Training(tmp_path_factory.mktemp("trainings"))


def curve(record, name):
    return [line[name] for line in record.samples() if name in line]


@pytest.mark.long
@pytest.mark.slow
def test_text_tasks_are_learned_beside_captions(finetune):
    record = finetune("train.text_every=2", steps=8)
    text, asked = curve(record, "text_loss"), curve(record, "question_loss")
    assert len(curve(record, "caption_loss")) == 8
    assert len(text) == len(asked) == 4
    assert text[-1] < text[0] - 0.5
    assert asked[-1] < asked[0] - 0.5


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
# Text tasks, accumulation, and batches whose halves differ in tokens.
SHARED_OUT = ("train.batch_size=4", "train.accumulate=2", "train.text_batch_size=2",
              "train.text_words=40", "train.validation_clips=4")  # fmt: skip
CURVES = ("image_loss", "caption_loss", "text_loss", "question_loss")


@pytest.fixture(scope="module")
def alone(finetune):
    """What one process makes of two steps of images and six of captions, by optimiser."""

    @functools.cache
    def trained(optimiser):
        return finetune(*SHARED_OUT, f"train.optimiser={optimiser}", steps=6)

    return trained


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "workers", "sharded"),
    [
        ((), 2, False),
        pytest.param(TORCHRUN, 1, False, marks=pytest.mark.long),
        pytest.param(TORCHRUN, 1, True, marks=pytest.mark.long),
    ],
    ids=["workers of the command", "DDP", "FSDP"],
)
def test_two_processes_train_as_one(finetune, alone, launcher, workers, sharded):
    optimiser = "adamw" if sharded else "muon"
    alone = alone(optimiser)
    two = finetune(
        *SHARED_OUT,
        f"train.optimiser={optimiser}",
        f"train.workers={workers}",
        f"train.shard={str(sharded).lower()}",
        "train.gradient_checkpointing=true",
        steps=6,
        launcher=launcher,
    )
    assert (alone.values["processes"], two.values["processes"]) == (1, 2)
    for name in CURVES:
        assert len(curve(alone, name)) in (2, 3, 6)
        assert curve(two, name) == pytest.approx(curve(alone, name), rel=1e-4)
    for same in ("parameters", "trained_parameters"):
        assert two.values[same] == alone.values[same]
    assert two.values["validation_cider"] == pytest.approx(alone.values["validation_cider"], abs=1)
    asked, took = (two.values[f"step_memory_{n}_bytes"] for n in ("estimated", "measured"))
    workspaces = 24 * 2**20  # of kernels and of the exchange between processes
    assert 0.8 * asked < took < 1.1 * asked + workspaces


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "workers", "sharded"),
    [((), 2, False), (TORCHRUN, 1, False), (TORCHRUN, 1, True)],
    ids=["workers of the command", "DDP", "FSDP"],
)
def test_two_processes_that_are_killed_go_on(alone, finetune, launcher, workers, sharded):
    """Both are killed behind a saved step; the same command ends as if they had not been."""
    optimiser = "adamw" if sharded else "muon"
    alone = alone(optimiser)
    command = (
        *SHARED_OUT,
        f"train.optimiser={optimiser}",
        f"train.workers={workers}",
        f"train.shard={str(sharded).lower()}",
        "train.checkpoint_every=2",
    )
    folder = finetune.folder()
    process = finetune.start(folder, *command, steps=6, launcher=launcher)
    saved = folder / "modules/state/state.pt"
    while not saved.is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    launched = psutil.Process(process.pid)
    for one in [launched, *launched.children(recursive=True)]:
        one.kill()
    process.communicate()
    assert saved.is_file()
    journal = (folder / "modules/state/curve.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in journal][:2]  # of the steps before the saved one
    record = finetune(*command, steps=6, launcher=launcher, folder=folder)
    assert record.samples()[:2] == kept  # with the seconds that they took then
    for name in CURVES:
        assert curve(record, name) == pytest.approx(curve(alone, name), rel=1e-4)
