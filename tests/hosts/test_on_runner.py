"""Benchmarks on the C++ runner: here, and on a stand-in device; their records and rows."""

import shutil
from dataclasses import replace

import pytest
from command import command

from atom_repro.device.machine import this_machine
from atom_repro.records.record import load_records
from atom_repro.report.tables.latency import arms

pytest.importorskip("executorch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        shutil.which("cmake") is None or shutil.which("g++") is None,
        reason="no cmake or no g++: `apt install cmake g++`",
    ),
]
SMALL = ("scale=smoke", "model.encoder.layers=1", "model.decoder.layers=1")


def test_a_latency_run_is_the_same_command_on_every_host(tmp_path):
    folders = [f"paths.work={tmp_path}/work", f"paths.results={tmp_path}/results"]
    trained = command("train.finetune", *SMALL, "train.max_steps=4", "train.validation_every=4",
                      "train.threads=1", *folders)  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    for host in ("in_process", "runner", "standin"):
        ran = command(
            "device_bench.latency", *SMALL, "engine=executorch", f"host={host}", "repeats=1",
            "pipeline=assembly", "pipeline.least_similarity=-1.0", "pipeline.script_tokens=8",
            "residencies=[resident,reload_stage]", *folders,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
    records = load_records([tmp_path / "results/records" / this_machine().fingerprint])
    measured = [r for r in records if r.stage == "latency"]
    assert [r.values["host"] for r in measured] == ["in_process", "runner", "standin"]
    tokens = {tuple(r.values["caption_tokens"]) for r in measured}
    assert len(tokens) == 1  # captions of the same lengths on all
    for record in measured:
        spans = [s for s in record.samples() if s["kind"] == "span"]
        assert {"load", "encode", "caption", "embed", "rank", "script"} <= {
            s["stage"] for s in spans
        }
        peaks = [s["session_memory_peak_bytes"] for s in record.samples() if s["kind"] == "prompt"]
        assert all(peak["anonymous"] > 0 for peak in peaks)
        assert arms([replace(record, preview=True)])


def test_a_host_that_cannot_says_so(tmp_path):
    folders = [f"paths.work={tmp_path}/work", f"paths.results={tmp_path}/results"]
    trained = command("train.finetune", *SMALL, "train.max_steps=4", "train.validation_every=4",
                      "train.threads=1", *folders)  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    ran = command("device_bench.latency", *SMALL, "host=runner", "repeats=1", *folders)
    assert ran.returncode == 1
    assert "the runner runs exported modules; add engine=executorch" in ran.stderr
