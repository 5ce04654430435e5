"""What CONTRIBUTING promises: a new engine, quantiser, model, stage or host is one file and a YAML.

Each is added to a copy of the tree, of which no other line changes, and runs through training,
evaluation, benchmark and tables.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atom_repro.records.record import Record, load_records
from atom_repro.report.tables.latency import arms
from atom_repro.report.tables.quality import table1

ROOT = Path(__file__).resolve().parents[2]
ADDED = Path(__file__).with_name("added")
COPIED = ("atom_repro", "conf", "train", "eval", "device_bench")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the code with the added files, and a trained tiny checkpoint."""
    folder = tmp_path_factory.mktemp("seams")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "results").mkdir()
    shutil.copytree(ROOT / "results/paper", folder / "results/paper")
    for path in ADDED.rglob("*.*"):
        target = folder / path.relative_to(ADDED)
        if path.is_file() and "__pycache__" not in path.parts:
            assert not target.exists(), f"{target} is no new file"
            shutil.copyfile(path, target)
    run(folder, "train.finetune", "train.max_steps=4", "train.validation_every=4",
        "train.threads=1")  # fmt: skip
    return folder


def run(folder, module, *overrides):
    """Run a command of the copy; its records."""
    done = subprocess.run(
        [sys.executable, "-m", module, "scale=smoke", *overrides], cwd=folder, text=True,
        capture_output=True, check=False, env=os.environ | {"PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    paths = sorted(folder.glob(f"results/records/*/{module.split('.')[1]}/*/record.json"))
    return [json.loads(path.read_text()) for path in paths]


LIMITS = ("repeats=1", "limits=true", "limits_s=0.01", "generation.forbid_end=true")


@pytest.fixture(scope="module")
def plain_work(tree):
    """The least work of a caption as the package has it."""
    record = run(tree, "device_bench.latency", "residencies=[resident]", *LIMITS)[-1]
    return record["values"]["least_work_per_clip"]


def as_tiny(folder):
    """The records of the copy, as if they were of a scale that tables show, and of a plain training
    by commands without overrides."""
    (machine,) = (folder / "results/records").iterdir()
    return [
        Record(record.folder, {**record.data, "scale": "tiny", "argv": [], "weights": "w"})
        for record in load_records([machine])
    ]


@pytest.mark.long  # the next test has one too
@pytest.mark.slow
def test_a_quantiser_is_one_file_and_one_yaml(tree):
    run(tree, "eval.caption")
    record = run(tree, "eval.caption", "quant=grouped4")[-1]
    labels = {key: record["values"][key] for key in ("precision", "recipe", "engine")}
    assert labels == {"precision": "int4", "recipe": "int4-group_16", "engine": "eager"}
    assert "minus_fp32" in record["values"]
    assert record["values"]["quantised"]["decoder"]["changed"]

    # Another group is another recipe: a folder, a record and a row of its own.
    run(tree, "eval.caption", "quant=grouped4", "quant.group=8")
    (checkpoint,) = (tree / ".atom/checkpoints").iterdir()
    assert {p.name for p in checkpoint.iterdir()} == {"fp32", "int4-group_16", "int4-group_8"}
    rows = {row.row for row in table1(as_tiny(tree), [])}
    assert {"mPLUG2+/fp32", "mPLUG2+/int4-group_16", "mPLUG2+/int4-group_8"} <= rows
    weights = [
        (checkpoint / name / "decoder/model.safetensors").stat().st_size
        for name in ("int4-group_16", "int4-group_8", "fp32")
    ]
    assert weights == sorted(weights)


@pytest.mark.slow
def test_an_engine_and_a_host_are_one_file_and_one_yaml_each(tree):
    records = run(
        tree, "device_bench.latency", "quant=grouped4", "engine=counting",
        f"engine.log={tree}/calls.txt", "residencies=[resident]", *LIMITS,
    )  # fmt: skip
    values = records[-1]["values"]
    assert values["engine"] == "counting"
    assert values["limit_kernels"] == {"fp32": "torch.einsum"}
    calls = (tree / "calls.txt").read_text().split()
    assert {calls.count(role) > 0 for role in ("encoder", "decoder", "embedder")} == {True}
    assert "encode" in values["least_s_per_clip"]  # held against fp32, its arithmetic

    fp32 = run(
        tree, "device_bench.latency", "host=spawned", "residencies=[resident]", *LIMITS,
    )[-1]["values"]  # fmt: skip
    saved = fp32["least_work_per_clip"]["step_bytes"] - values["least_work_per_clip"]["step_bytes"]
    assert saved > 0.5 * fp32["least_work_per_clip"]["step_bytes"]
    assert (fp32["host"], values["host"]) == ("spawned", "in_process")
    assert fp32["tokens_identical"]


@pytest.mark.long
@pytest.mark.slow
def test_endurance_runs_on_an_added_host(tree):
    endured = run(tree, "device_bench.endurance", "host=spawned", "clips=12", "broken_every=5",
                  "sample_every=1")  # fmt: skip
    assert endured[-1]["values"]["host"] == "spawned"
    assert endured[-1]["values"]["captioned"] == 10


@pytest.mark.long
@pytest.mark.slow
def test_a_stage_between_encoder_and_decoder_is_one_file_and_one_yaml(tree, plain_work):
    stage = "visual_stages=average_pairs"
    values = run(tree, "eval.caption", stage)[-1]["values"]
    assert values["visual_stages"] == ["average_pairs"]
    assert "mPLUG2+ with average_pairs/fp32" in {row.row for row in table1(as_tiny(tree), [])}

    residencies = "residencies=[resident,reload_input]"
    record = run(tree, "device_bench.latency", stage, residencies, *LIMITS)[-1]
    work = record["values"]["least_work_per_clip"]
    assert work["encode_operations"] == plain_work["encode_operations"]
    assert 0.4 < work["prefill_operations"] / plain_work["prefill_operations"] < 0.6
    assert work["step_bytes"] < plain_work["step_bytes"]  # half the keys and values
    columns = {
        row.row: row.column for row in arms(as_tiny(tree)) if row.column.endswith("/average_pairs")
    }
    model = "host/tiny_mplug2plus with average_pairs"
    assert set(columns) == {
        f"{model}/retrieval/fp32/{residency}/{schedule}"
        for residency in ("resident", "reload_input")
        for schedule in ("sequential", "parallel")
    }


@pytest.mark.slow
def test_a_model_with_two_feature_levels_is_one_file_and_one_yaml(tree, plain_work):
    model = "model=two_levels"
    run(tree, "train.finetune", model, "train.max_steps=4", "train.validation_every=4",
        "train.threads=1")  # fmt: skip
    record = run(tree, "eval.caption", model, "quant=int8")[-1]
    changed = record["values"]["quantised"]
    assert "shallow.blocks.0.fc1" in changed["encoder"]["changed"]
    assert "mix" in changed["decoder"]["changed"]
    assert "two_levels/int8" in {row.row for row in table1(as_tiny(tree), [])}

    # Every clip matches, so that a script is written whatever the captions say.
    assembly = ("pipeline=assembly", "pipeline.least_similarity=-1.0")
    arguments = (model, *assembly, "residencies=[resident]", *LIMITS)
    work = run(tree, "device_bench.latency", *arguments)[-1]["values"]["least_work_per_clip"]
    assert work["encode_operations"] > plain_work["encode_operations"]
    assert work["prefill_operations"] > plain_work["prefill_operations"]
    assert work["step_bytes"] == plain_work["step_bytes"]  # a step does not read the mixing weight
    assert any(row.row.startswith("host/two_levels/assembly") for row in arms(as_tiny(tree)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "pipeline",
    [
        "questions",
        pytest.param("localisation", marks=pytest.mark.long),
        pytest.param("summary", marks=pytest.mark.long),
    ],
)
def test_every_pipeline_that_is_measured_is_in_a_table(tree, pipeline):
    # Every clip matches, so that a question is answered whatever the captions say.
    matching = [] if pipeline == "summary" else ["pipeline.least_similarity=-1.0"]
    run(tree, "device_bench.latency", f"pipeline={pipeline}", *matching, "residencies=[resident]",
        "schedules=[sequential]", "repeats=1", "generation.forbid_end=true")  # fmt: skip
    rows = [row for row in arms(as_tiny(tree)) if f"/{pipeline}/" in row.row]
    total = {row.column: row.ours for row in rows}
    assert pipeline != "questions" or total["tiny/stage/answer"] > 0
    stages = sum(value for name, value in total.items() if name.startswith("tiny/stage/"))
    assert stages + total["tiny/residual"] - total["tiny/less overlap"] == pytest.approx(
        total["tiny/prompt 1"], rel=1e-6
    )
