"""Figures in sentences of README and CHANGELOG, against the cells and records that they are of."""

import csv
from pathlib import Path

import pytest
import torch

from atom_repro.config import build, compose
from atom_repro.records.record import load_records
from atom_repro.records.reference import reference_machines
from atom_repro.report.paper import load_cells, value_of
from atom_repro.study.overrides import plan_stages
from atom_repro.study.plan import duration, estimate, total_time

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
PAPER = list(load_cells(RESULTS / "paper"))
FULL_SIZE = "host/mplug2plus, experiment=latency/full_size, pipeline.forbid_end=True"
FAST = "host/mplug2plus, engine executorch, experiment=latency/full_size"


def text(name):
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def records():
    """Committed records of the reference machines, oldest first."""
    return load_records([RESULTS / "records" / name for name in reference_machines(RESULTS)])


def cells(table):
    with (RESULTS / f"tables/{table}.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def cell(table, row, column):
    """The last such cell: that of the machine that was added last."""
    found = [c for c in cells(table) if (c["row"], c["column"]) == (row, column) and c["ours"]]
    return float(found[-1]["ours"])


def test_what_the_study_takes(records):
    stages = plan_stages("reproduce", [f"paths.results={RESULTS}"])
    model = stages[0].settings["model"]["name"]
    trained = [
        r
        for r in records
        if r.stage == "finetune" and not r.config("sweep") and r.config("model.name") == model
    ]
    loads = {None: "load not recorded", True: "beside other work", False: "on a quiet machine"}
    newest = trained[-1]
    seconds, unknown, _ = total_time(stages, newest.machine)
    training = estimate("finetune", stages[0].settings, newest.machine).seconds
    assert unknown == 0
    beside = [r.busy for r in records if r.stage == "latency" and r.run_id > newest.run_id]
    assert any(beside)
    assert (
        f"On 2 cores of an AMD EPYC of family {newest.machine.family} without AVX-512 the "
        f"committed records add up to {duration(seconds)}, {duration(training)} of it training "
        f"({loads[newest.busy]}) and the latency stages beside other work"
    ) in text("README.md")


def test_sizes(records):
    stored = next(r for r in records if r.stage == "storage" and r.values["model"] == "mplug2plus")
    assert f"`model=mplug2plus`, {stored.values['parameters']:,} parameters" in text("README.md")
    gigabytes = sum(stored.values["bytes"]["fp32"].values()) / 1e9
    assert f"the full-size mPLUG2+ ({gigabytes:.1f} GB, in main memory)" in text("README.md")
    model = build(compose("latency", ["model=small_mplug2plus"]).model)
    with torch.device("meta"):
        networks = model.make_encoder(), model.make_decoder()
    parameters = sum(p.numel() for network in networks for p in network.parameters())
    assert f"({parameters / 1e6:.0f} million parameters, for a GPU)" in text("README.md")


def test_what_the_fast_engine_gives_at_full_size():
    arm = f"{FAST}/assembly/8da8w"
    atom, baseline, load, reload = (
        cell("arms", f"{arm}/{name}", f"systems/{column}")
        for name, column in (
            ("resident/parallel", "prompt 1"), ("reload_stage/sequential", "prompt 1"),
            ("resident/parallel", "stage/load"), ("reload_stage/sequential", "stage/load"),
        )
    )  # fmt: skip
    saving = next(
        c for c in cells("table03")
        if (c["row"], c["column"]) == (f"{FAST}/8da8w/atom", "systems/assembly_saving")
    )  # fmt: skip
    said = " ".join(text("README.md").split())
    assert (
        f"the same assembly takes {atom:.1f} s under Atom's arm and {baseline:.1f} s under the "
        f"baseline's ({float(saving['ours']):.1f} %, {saving['n']} pairs); loads are "
        f"{load:.1f} s and {reload:.1f} s of it."
    ) in said


def test_what_the_fast_engine_gives_beside_the_eager_one():
    prefix = "host/mplug2plus, experiment=compare/full_size/assembly/resident/parallel"
    eager, fast = f"{prefix}/eager_fp32", f"{prefix}/executorch_int8 beside eager_fp32"
    seconds = [cell("compare", row, "systems/prompt 1") for row in (fast, eager)]
    faster = next(
        c for c in cells("compare")
        if (c["row"], c["column"]) == (fast, "systems/prompt 1, times as fast")
    )  # fmt: skip
    encoding, captioning = (
        cell("compare", fast, f"systems/{stage}, times as fast") for stage in ("encode", "caption")
    )
    bound = cell("compare", fast, "systems/measured / least")
    assert (
        f"Atom's arm there takes {seconds[0]:.1f} s for {seconds[1]:.1f} s, "
        f"{float(faster['ours']):.1f} times as fast (95 % interval {float(faster['low']):.1f} to "
        f"{float(faster['high']):.1f}; encoding {encoding:.1f}, captioning {captioning:.1f} "
        f"times), which is {bound:.1f} times the least"
    ) in text("README.md")


def test_what_the_runner_gives_beside_the_python_runtime():
    prefix = "host/mplug2plus, experiment=compare/full_size/assembly/resident/parallel"
    rows = [f"{prefix}/in_process"] + [
        f"{prefix}/{name} beside in_process" for name in ("runner", "runner_packed_weights")
    ]
    python, runner, packed = (
        {
            column: cell("compare", row, f"systems/{column}")
            for column in ("prompt 1", "load", "anonymous, MiB")
        }
        for row in rows
    )
    said = " ".join(text("README.md").split())
    for words in (
        f"needs {runner['anonymous, MiB']:,.0f} MiB of anonymous memory where Python's processes "
        f"need {python['anonymous, MiB']:,.0f}",
        f"it needs {packed['anonymous, MiB']:,.0f} MiB, and all loads of the assembly take "
        f"{packed['load']:.2f} s instead of {runner['load']:.1f}",
        f"({runner['prompt 1']:.1f} s, packed {packed['prompt 1']:.1f} s, "
        f"Python {python['prompt 1']:.1f} s)",
    ):
        assert words in said


def test_how_peers_compare(records):
    row = "host/mplug2plus, model.decoder.layers=4, model.encoder.layers=4"
    calls = ("prefill", "step_1x1", "step_1x4", "step_5x4")

    def of(peer, grid):
        found = {
            c["column"].removeprefix("systems/"): float(c["ours"])
            for c in cells("peers")
            if (c["row"], c["grid"]) == (f"{row}/{peer}", grid)
        }
        return [found[call] for call in calls]

    llama, openvino, onnx = (
        of(f"{peer}_int8", "times our int8") for peer in ("llamacpp", "openvino", "onnxruntime")
    )
    away = [
        max(of(f"{peer}_int8", "largest difference from fp32, of the largest value"))
        for peer in ("onnxruntime", "executorch")
    ]
    (record,) = (
        r for r in records if r.stage == "peers" and "llamacpp_int8/decoder" in r.values["open_s"]
    )
    opened = record.values["open_s"]["onnxruntime_int8/decoder"] / 60
    said = text("README.md")
    for words in (
        f"llama.cpp takes {llama[0]:.1f} times as long as our engine for the prompt and "
        f"{llama[1]:.1f}, {llama[2]:.1f} and {llama[3]:.1f} times for a step",
        f"OpenVINO {openvino[0]:.1f} and {openvino[1]:.1f}, {openvino[2]:.1f} and "
        f"{openvino[3]:.1f} times",
        f"{onnx[0]:.1f} times as long for the prompt, {onnx[1]:.1f}, {onnx[2]:.1f} and "
        f"{onnx[3]:.1f} for a step, with outputs up to {away[0]:.1f} % from fp32 where ours are "
        f"{away[1]:.1f} %; it took {opened:.0f} minutes to open",
    ):
        assert words in said, words


def test_what_a_gpu_gives(records):
    gpu = "cuda: NVIDIA H200/mplug2plus, embedder=.atom/random_minilm, experiment=latency/full_size"

    def saving(precision, column="assembly_saving"):
        row = f"{gpu}/{precision}/atom", f"systems/{column}"
        return next(c for c in cells("table03") if (c["row"], c["column"]) == row)

    def seconds(precision, arm, column="assembly"):
        return cell("table03", f"{gpu}/{precision}/{arm}", f"systems/{column}")

    fp32, bf16 = saving("fp32"), saving("bf16")
    apart = [
        float(saving("fp32", f"assembly_saving, {name} alone")["ours"])
        for name in ("reuse", "overlap")
    ]
    stopped = [r for r in records if r.config("device.index") is not None and not r.ok][-1]
    sessions = [s["end_to_end_s"] for s in stopped.samples() if s["kind"] == "prompt"]
    share = cell("limits", f"{gpu}/assembly/fp32", "systems/caption, share of the limit after")
    said = text("README.md")
    assert stopped.config("quant.linear") == "dynamic"
    for words in (
        f"takes {seconds('fp32', 'atom'):.1f} s under Atom's arm and "
        f"{seconds('fp32', 'baseline'):.1f} s under the baseline's in fp32 "
        f"({float(fp32['ours']):.1f} %, {fp32['n']} pairs), and {seconds('bf16', 'atom'):.1f} s "
        f"for {seconds('bf16', 'baseline'):.1f} s with `quant=bf16` ({float(bf16['ours']):.1f} %, "
        f"{bf16['n']} pairs)",
        f"most of the time is loading ({seconds('fp32', 'baseline', 'load'):.1f} of "
        f"{seconds('fp32', 'baseline'):.1f} s), and reuse alone saves {apart[0]:.1f} %, overlap "
        f"alone {apart[1]:.1f} %",
        f"stopped after two sessions in the warm-up round, of {sessions[0]:.1f} and "
        f"{sessions[1]:.1f} s",
        f"reaches {share:.0f} % of its limit in fp32 there",
    ):
        assert words in said, words


def test_what_reuse_and_overlap_give_at_full_size():
    baseline_arm = f"{FULL_SIZE}/assembly/fp32/reload_stage/sequential"
    baseline = cell("arms", baseline_arm, "systems/prompt 1")
    apart = {
        name: cell("table03", f"{FULL_SIZE}/fp32/atom", f"systems/assembly_saving, {name} alone")
        for name in ("overlap", "reuse")
    }
    saving = next(
        c for c in cells("table03")
        if (c["row"], c["column"]) == (f"{FULL_SIZE}/fp32/atom", "systems/assembly_saving")
    )  # fmt: skip
    paper = value_of(PAPER, "table03", "x86-cpu/fp32/atom", "assembly_saving")
    load = cell("table03", f"{FULL_SIZE}/fp32/baseline", "systems/load")
    assert f"reading takes {load:.1f} s of {baseline:.0f}, from the page cache" in text("README.md")
    said = (
        f"Atom saves {float(saving['ours']):.1f} % ({saving['n']} pairs) where the paper says "
        f"{paper:.1f} %; overlap alone saves {apart['overlap']:.1f} %, reuse alone "
        f"{apart['reuse']:.1f} %."
    )
    assert said in text("README.md")


def test_what_tiny_models_know():
    seen, held_out = (
        cell("attributes", f"mPLUG2+/fp32/{group}", "toy/object") for group in ("seen", "held_out")
    )
    said = (
        f"they name the moving thing right in {seen:.0f} % of 150 clips like those they were "
        f"trained on, and in {held_out:.0f} % of 150 clips of new combinations"
    )
    assert said in text("README.md")


def test_which_family_captions_better():
    machines = {c["machine"] for c in cells("table01") if c["row"] == "mPLUG2/fp32" and c["ours"]}
    scores = [
        {
            c["row"]: float(c["ours"])
            for c in cells("table01")
            if c["machine"] == machine and c["column"] == "toy/CIDEr" and c["ours"]
        }
        for machine in machines
    ]
    better = all(of_one["mPLUG2/fp32"] > of_one["mPLUG2+/fp32"] for of_one in scores)
    assert ("captions better than mPLUG2+, which shares its decoder" in text("README.md")) is better


def test_what_the_audit_counts():
    with (RESULTS / "audit/audit.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    checks = len({row["family"] for row in rows})
    papers = sum(c.table != "facts" for c in PAPER)
    said = (
        f"the paper's numbers as {papers} cells beside {len(PAPER) - papers} facts, and {checks} "
        f"checks with {len(rows)} rows computed from them"
    )
    assert said in text("CHANGELOG.md")
