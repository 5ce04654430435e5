"""device_bench.peers: peers compute the same, and one that is missing is a line."""

from types import SimpleNamespace

import pytest
from command import command

from atom_repro import config
from atom_repro.device.machine import this_machine
from atom_repro.peers.peer import Shape, relative_error
from atom_repro.records.record import load_records
from atom_repro.report import cells
from atom_repro.report.render import to_markdown
from atom_repro.report.tables import peers

pytestmark = pytest.mark.slow
SHAPES = {"encode", "prefill", "step_1x1", "step_2x3"}


def test_an_unknown_peer_is_refused(tmp_path):
    ran = command("device_bench.peers", "only=[torch_fp33]", f"paths.results={tmp_path}")
    assert ran.returncode == 1
    assert "only: there is no peer torch_fp33; known: executorch_int8" in ran.stderr


def test_errors_are_relative_to_the_largest_value():
    shape = Shape("step", "step", prefix=3, allocated=2, clips=2, beams=3)
    model = config.build(config.compose("peers", ["model=tiny_mplug2plus"]).model)
    x, *_ = shape.inputs(model)
    assert x.shape == (2, 3, model.decoder.width)
    assert relative_error(x, x) == 0
    assert relative_error(1.5 * x, x) == pytest.approx(0.5)
    assert relative_error(x, None) is None


def test_each_peer_has_each_shape_and_computes_the_same(tmp_path):
    ran = command(
        "device_bench.peers", "model=tiny_mplug2plus", "rounds=2", "limits_s=0.02", "prefix=20",
        "batches=[[1,1],[2,3]]", "only=[torch_fp32,torch_bf16,torchao_int8,openvino_int8]",
        f"paths.work={tmp_path}/work", f"paths.results={tmp_path}/results",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    (record,) = load_records([tmp_path / "results/records" / this_machine().fingerprint])
    values = record.values
    assert record.data["weights"] == "random"
    timed_calls = [s for s in record.samples() if s["kind"] == "call" and not s["warmup"]]
    timed = {(s["peer"], s["shape"]) for s in timed_calls}
    for peer, most in (("torch_fp32", 0.0), ("torch_bf16", 0.03), ("torchao_int8", 0.1)):
        assert {shape for name, shape in timed if name == peer} == SHAPES
        for shape in SHAPES:
            assert values["errors"][f"{peer}/{shape}"] <= most
    # Where its packages are missing, as in CI, the others are timed all the same.
    absent = [name for name in values["failures"] if name.startswith("openvino_int8")]
    present = "openvino_int8" in {name for name, _ in timed}
    assert present or all("is not installed" in values["failures"][name] for name in absent)
    assert present != bool(absent)
    assert "read_bytes_per_s" in values["limits_before"]
    # A step's weights a second, beside a read of memory in the same round.
    assert values["precisions"]["torchao_int8"] == "int8"
    shares = {r.row.rpartition("/")[2]: r for r in peers.build([record]) if "plain read" in r.grid}
    assert {"torch_fp32", "torch_bf16", "torchao_int8"} <= shares.keys()
    assert all(0 < r.ours < 100 for r in shares.values())


def test_the_table_has_times_ratios_and_differences(monkeypatch):
    monkeypatch.setattr(peers, "OURS", "torch_fp32")
    machine = this_machine()
    samples = [
        {
            "kind": "call",
            "peer": peer,
            "shape": "prefill",
            "round": i,
            "warmup": i == 0,
            "seconds": s * (i + 1),
        }
        for i in range(7)
        for peer, s in (("torch_fp32", 0.1), ("torch_bf16", 0.3))
    ]
    record = SimpleNamespace(
        stage="peers", machine=machine, clean=True, run_id="one", ok=True, busy=False,
        data={"scale": "systems", "device": "cpu"}, samples=lambda: samples,
        values={"errors": {"torch_fp32/prefill": 0.0, "torch_bf16/prefill": 0.02}},
    )  # fmt: skip
    monkeypatch.setattr(peers, "select", lambda records, stage: {0: record})
    monkeypatch.setattr(peers, "device_and_model", lambda record: "host/tiny")
    monkeypatch.setattr(cells, "system_load_label", lambda record: "quiet")
    found = {(r.row, r.grid, r.unit): r for r in peers.build([record])}
    bf16 = found["host/tiny/torch_bf16", "", "s"]
    assert (bf16.ours, bf16.n) == (pytest.approx(1.35), 6)  # median of 0.6, 0.9, … 2.1
    assert bf16.low == pytest.approx(0.6)
    ratio = found["host/tiny/torch_bf16", "times our int8", "1"]
    assert ratio.ours == pytest.approx(3.0)
    away = next(r for (row, _, unit), r in found.items() if unit == "%" and "bf16" in row)
    assert away.ours == pytest.approx(2.0)
    assert "step/clips" not in to_markdown("peers", list(found.values()))
