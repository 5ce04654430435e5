"""A training as a user runs it: the losses that it always had, and those of text tasks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atom_repro.device.machine import this_machine
from atom_repro.records.record import load_records

ROOT = Path(__file__).resolve().parents[1]
NO_TEXT = ("train.text_batch_size=0", "train.text_questions=0")
# Caption losses of the first ten steps in fp32, before rates, batches and losses were reworked
# for more processes, accumulation and text tasks (commit 35c02f2).
LOSSES = [
    6.303668975830078, 6.035520076751709, 5.782184600830078, 5.580196380615234, 5.294185638427734,
    5.071383476257324, 4.818702697753906, 4.601332187652588, 4.619665145874023, 4.492630481719971,
]  # fmt: skip


@pytest.fixture(scope="module")
def finetune(tmp_path_factory):
    """Runs a training in a process of its own: its record. The data set is made once."""
    work = tmp_path_factory.mktemp("work")

    def run(*arguments, steps=10, launcher=()):
        results = tmp_path_factory.mktemp("results")
        done = subprocess.run(
            [
                sys.executable, *launcher, "-m", "train.finetune", "scale=smoke", "train.threads=1",
                "train.precision=fp32", f"train.max_steps={steps}",
                f"train.validation_every={steps}", "force=true", f"paths.work={work}",
                f"paths.results={results}", *arguments,
            ],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env=os.environ | {"ACCELERATE_USE_CPU": "true"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (record,) = load_records(results / "records" / this_machine().fingerprint)
        return record

    return run


def curve(record, name):
    return [line[name] for line in record.samples() if name in line]


@pytest.mark.slow
def test_the_losses_are_what_they_were(finetune):
    record = finetune(*NO_TEXT, "model.decoder.vocabulary=512")
    assert curve(record, "caption_loss") == pytest.approx(LOSSES, rel=1e-4)


@pytest.mark.slow
def test_text_tasks_are_learned_beside_captions(finetune):
    record = finetune("train.text_every=2", steps=8)
    text, asked = curve(record, "text_loss"), curve(record, "question_loss")
    assert len(curve(record, "caption_loss")) == 8
    assert len(text) == len(asked) == 4
    assert text[-1] < text[0] - 0.5
    assert asked[-1] < asked[0] - 0.5


@pytest.mark.slow
def test_two_processes_train_as_one(finetune):
    """With text tasks, accumulation, and batches whose halves differ in tokens."""
    settings = ("train.batch_size=4", "train.accumulate=2", "train.text_batch_size=2",
                "train.text_words=40", "train.validation_clips=4")  # fmt: skip
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    one = finetune(*settings, steps=6)
    two = finetune(*settings, steps=6, launcher=launcher)
    assert (one.values["processes"], two.values["processes"]) == (1, 2)
    for name in ("caption_loss", "text_loss", "question_loss"):
        assert len(curve(one, name)) in (3, 6)
        assert curve(two, name) == pytest.approx(curve(one, name), rel=1e-4)
    assert two.values["validation_cider"] == pytest.approx(one.values["validation_cider"], abs=1)
