"""Dry runs: what would be done, about how long, how many bytes; and nothing is written."""

import json
from dataclasses import replace

import pytest
from command import command
from machines import FIRST

from atom_repro.config import compose, to_dict
from atom_repro.study.plan import estimate, planned_only, work

OTHER = replace(FIRST, fingerprint="fedcba987654", model="99", cores=64)
LIKE = replace(FIRST, fingerprint="0123456789ab", os_release="another")


def settings(results, *overrides, command="latency"):
    return to_dict(compose(command, [f"paths.results={results}", *overrides]))


def recorded(results, name, machine, config, *, minutes, stage="latency", status="ok", **changes):
    folder = results / "records" / machine.fingerprint / stage / name
    folder.mkdir(parents=True)
    record = {
        "schema": 1, "stage": stage, "status": status, "key": name, "machine": machine.to_dict(),
        "started_utc": "2026-01-01T00:00:00+00:00",
        "ended_utc": f"2026-01-01T00:{minutes:02}:00+00:00",
        "config": {k: v for k, v in config.items() if k != "paths"}, "protocol": "",
        "scale": "tiny", "weights": "w", **changes,
    }  # fmt: skip
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_time_comes_from_the_same_work_on_a_processor_like_this_one(tmp_path):
    wanted = settings(tmp_path, "repeats=10")
    assert work("latency", wanted) == 3 * 2 * 10 * 5
    recorded(tmp_path, "a", OTHER, wanted, minutes=50)
    recorded(tmp_path, "b", LIKE, settings(tmp_path, "quant=int8"), minutes=40)
    recorded(tmp_path, "c", LIKE, settings(tmp_path, "pipeline=summary"), minutes=40)
    recorded(tmp_path, "d", LIKE, wanted, minutes=40, status="failed")
    nothing = estimate("latency", wanted, FIRST)
    assert (nothing.seconds, nothing.on_record) == (None, None)
    assert f"no record of it on {FIRST.processor}; on {OTHER.processor} it took" in nothing.basis

    recorded(tmp_path, "e", LIKE, settings(tmp_path, "repeats=5", "job_clips=1"), minutes=1)
    like = estimate("latency", wanted, FIRST)
    assert like.seconds == pytest.approx(60 * 10)  # ten times the clips
    assert like.on_record is None
    assert "e, times 10" in like.basis

    # Of the machine itself, and this very run.
    recorded(tmp_path, "f", FIRST, settings(tmp_path, "repeats=20"), minutes=6)
    assert estimate("latency", wanted, FIRST).seconds == pytest.approx(180)
    folder = recorded(tmp_path, "g", FIRST, wanted, minutes=4)
    this = estimate("latency", wanted | {"dry_run": True}, FIRST)
    assert (this.seconds, this.on_record) == (240, folder)
    again = estimate("latency", wanted | {"force": True}, FIRST)
    assert (again.seconds, again.on_record) == (240, None)  # it would run all the same
    assert this.record_bytes == (folder / "record.json").stat().st_size


def test_a_command_of_several_records_takes_the_time_of_all(tmp_path):
    wanted = settings(tmp_path, command="training_step")
    for clips, minutes in ((1, 1), (2, 3), (32, 5)):  # the last is the default of train.batch_size
        config = wanted | {"train": wanted["train"] | {"batch_size": clips}}
        recorded(tmp_path, f"r{clips}", FIRST, config, minutes=minutes, stage="training_step")
    expected = estimate("training_step", wanted, FIRST)
    assert (expected.seconds, expected.on_record) == (9 * 60, None)


def test_steps_follow_from_epochs_where_those_are_set(tmp_path):
    by_steps = settings(tmp_path, "train.max_steps=100", command="finetune")
    assert work("finetune", by_steps) == 100 * 32
    by_epochs = settings(
        tmp_path, "train.epochs=3", "train.batch_size=256", "dataset.train=500", command="finetune"
    )
    assert work("finetune", by_epochs) == 3 * 500
    recorded(tmp_path, "a", FIRST, by_steps, minutes=10, stage="finetune", scale="tiny")
    assert estimate("finetune", by_epochs, FIRST).seconds is None


def test_a_run_of_the_same_scale_tells_more_than_a_later_one_of_another(tmp_path):
    wanted = settings(tmp_path)
    recorded(tmp_path, "a", FIRST, settings(tmp_path, "repeats=3"), minutes=9, scale="tiny")
    recorded(tmp_path, "b", FIRST, settings(tmp_path, "scale=smoke"), minutes=1, scale="smoke")
    assert estimate("latency", wanted, FIRST).seconds == pytest.approx(2 * 9 * 60)


def test_a_plan_names_choices_work_time_and_bytes(tmp_path, capsys):
    assert not planned_only("latency", settings(tmp_path), FIRST)
    assert capsys.readouterr().out == ""
    wanted = settings(tmp_path, "dry_run=true", "quant=int8")
    recorded(tmp_path, "a", FIRST, wanted, minutes=2)
    assert planned_only("latency", wanted, FIRST, writes=lambda: {"int8 modules": 2_500_000})
    text = capsys.readouterr().out
    for line in ("model=tiny_mplug2plus", "quant=int8", "residencies 3 x schedules 2",
                 "about 2 min, by latency/a", "int8 modules 2.5 MB, records of about"):  # fmt: skip
        assert line in text


NEEDS = "run train.finetune first"
COMMANDS = {
    "train.finetune": "training state", "train.sweep": "learning_rate", "eval.caption": NEEDS,
    "eval.retrieval": NEEDS, "eval.tasks": NEEDS, "eval.human_captions": "human_captions",
    "eval.text_embedder": "text_embedder", "eval.reproduce": "eval.tasks quant=int8",
    "device_bench.latency": NEEDS, "device_bench.sessions": NEEDS,
    "device_bench.endurance": NEEDS, "device_bench.storage": "modules, which are deleted",
    "device_bench.sweep": "auto: 4 points", "device_bench.training_step": "steps",
    "device_bench.peers": "rounds 10", "device_bench.contention": "rounds 2 x busy 3 x workers",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_that_measures_or_trains_has_a_dry_run(module, tmp_path):
    done = command(
        module, "dry_run=true", f"paths.work={tmp_path}/work", f"paths.results={tmp_path}/results"
    )
    assert done.returncode == 0, done.stderr
    assert "nothing is run or written" in done.stdout
    assert COMMANDS[module] in done.stdout
    assert not list(tmp_path.iterdir())
