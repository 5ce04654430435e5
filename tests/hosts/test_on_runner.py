"""Benchmarks on the C++ runner: here, and on a stand-in device; their records and rows."""

from dataclasses import replace

import pytest
from command import command
from runner_jobs import ARM64, needs_tools

from atom_repro.device.machine import this_machine
from atom_repro.hosts import toolchain
from atom_repro.records.record import load_records
from atom_repro.report.identity import refusal
from atom_repro.report.tables.latency import arms

pytest.importorskip("executorch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    needs_tools(),
]
SMALL = ("scale=smoke", "model.encoder.layers=1", "model.decoder.layers=1")


def test_a_latency_run_is_the_same_command_on_every_host(tmp_path):
    folders = [f"paths.work={tmp_path}/work", f"paths.results={tmp_path}/results"]
    trained = command("train.finetune", *SMALL, "train.max_steps=4", "train.validation_every=4",
                      "train.threads=1", *folders)  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    hosts = [["host=in_process"], ["host=runner"], ["host=standin"]]
    names = ["in_process", "runner", "standin"]
    if not toolchain.missing_tools(ARM64) and not ARM64.missing_emulator and not ARM64.is_native:
        hosts.append(["host=standin", "host.architecture=aarch64"])
        names.append("standin aarch64 emulated")
    for host in hosts:
        ran = command(
            "device_bench.latency", *SMALL, "engine=executorch", *host, "repeats=1",
            "pipeline=assembly", "pipeline.least_similarity=-1.0", "pipeline.script_tokens=8",
            "residencies=[resident,reload_stage]", *folders,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
    records = load_records([tmp_path / "results/records" / this_machine().fingerprint])
    measured = [r for r in records if r.stage == "latency"]
    assert [r.values["host"] for r in measured] == names
    tokens = {tuple(r.values["caption_tokens"]) for r in measured}
    assert len(tokens) == 1  # captions of the same lengths on all
    for record in measured:
        spans = [s for s in record.samples() if s["kind"] == "span"]
        assert {"load", "encode", "caption", "embed", "rank", "script"} <= {
            s["stage"] for s in spans
        }
        peaks = [s["session_memory_peak_bytes"] for s in record.samples() if s["kind"] == "prompt"]
        assert all(peak["anonymous"] > 0 for peak in peaks)
        shown = replace(record, preview=True)
        assert bool(arms([shown])) != record.values["host"].endswith("emulated")
        assert (refusal(shown) is None) == bool(arms([shown]))


def test_a_host_that_cannot_says_so(tmp_path):
    folders = [f"paths.work={tmp_path}/work", f"paths.results={tmp_path}/results"]
    trained = command("train.finetune", *SMALL, "train.max_steps=4", "train.validation_every=4",
                      "train.threads=1", *folders)  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    ran = command("device_bench.latency", *SMALL, "host=runner", "repeats=1", *folders)
    assert ran.returncode == 1
    assert "the runner runs exported modules; add engine=executorch" in ran.stderr
