"""Sweeps on a stand-in: each thing that goes wrong is a record, and the same command goes on."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import adbutils
import psutil
import pytest
from command import ROOT, command
from exported_models import (
    FP32,
    as_overrides,
    exported_checkpoint,
    llama,
    with_embedder,
)
from runner_jobs import built

from atom_repro import config
from atom_repro.adb.connection import Connection
from atom_repro.adb.standin import StandIn
from atom_repro.datatypes import AtomError
from atom_repro.device.machine import this_machine
from atom_repro.hosts.device_runs import FOLDER
from atom_repro.hosts.lanes import clean_up_devices
from atom_repro.records.record import load_records
from atom_repro.study.overrides import device_points

pytest.importorskip("executorch")
needs_compiler = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("g++") is None,
    reason="no cmake or no g++: `apt install cmake g++`",
)
RUNNER = "--library-path"  # stands in the command line of the runner alone


def test_a_point_is_a_quantiser_a_pipeline_and_a_setting():
    points = device_points("device_sweep", ["settings=table05", "repeats=2"], ["host=standin"])
    assert list(points) == [
        *(f"{quant} {task} default" for quant in ("none", "8da8w")
          for task in ("retrieval", "assembly")),
        *(f"{quant} assembly {setting}" for setting in ("fps2", "px112", "beam1", "length12")
          for quant in ("none", "8da8w")),
    ]  # fmt: skip
    fps2 = points["8da8w assembly fps2"]
    assert (fps2.module, fps2.primary) == ("device_bench.latency", "latency")
    settings = fps2.settings
    assert settings["model"]["encoder"]["frames"] == 2
    assert settings["model"]["name"] == "tiny_mplug2plus-fps2"  # it has modules of its own
    assert (settings["setting"], settings["repeats"]) == ("fps2", 2)
    assert points["none assembly beam1"].settings["model"]["name"] == "tiny_mplug2plus"
    # What the user says stands in place of what the sweep fixes.
    (plain,) = device_points(
        "device_sweep", ["quants=[none]", "pipelines=[retrieval]", "residencies=[resident]"], []
    ).values()
    assert plain.settings["residencies"] == ["resident"]
    assert plain.settings["setting"] == ""
    # A key that only the device's host has.
    (pinned, *_) = device_points(
        "device_sweep", ["host.control.affinity=f0"], ["host=auto", "host.serial='a:1'"]
    ).values()
    assert pinned.settings["host"]["control"]["affinity"] == "f0"
    assert pinned.settings["host"]["serial"] == "a:1"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("quant=int8", r"quant is set by the sweep; set quants=\[…\]"),
        ("host=auto", r"host is set by the sweep; set hosts"),
        ("quants=[]", "quants and pipelines need one choice"),
        ("quants=[int9]", "unknown choice quant=int9"),
        ("host.control.afinity=f0", "host.control.afinity"),
        ("repeat=2", "neither the sweep nor device_bench.latency knows repeat; did you mean"),
    ],
)
def test_a_mistake_is_refused_before_any_point(override, said):
    with pytest.raises(AtomError, match=said):
        device_points("device_sweep", [override], ["host=standin"])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Overrides that choose a small exported model, and a work folder that all sweeps share."""
    network = llama()
    checkpoint = with_embedder(
        exported_checkpoint(network, FP32, tmp_path_factory), tmp_path_factory
    )
    builds = built(tmp_path_factory)[0].parents[1]
    return [
        *as_overrides(network), f"host.folder={builds}", f"checkpoint.folder={checkpoint.folder}",
        f"paths.work={tmp_path_factory.mktemp('sweeps')}/work", "scale=smoke", "dataset.train=1",
        "dataset.validation=1", "dataset.test=2", "dataset.long_videos=1", "generation.beams=1",
        "generation.max_new_tokens=2", "pipeline.prompts=[sea,sun,sky]",
    ]  # fmt: skip


# Modules are loaded for each stage, so that a session lasts long enough to be struck.
ONE_POINT = ("quants=[none]", "pipelines=[retrieval]", "residencies=[reload_stage]",
             "schedules=[sequential]", "repeats=1")  # fmt: skip
CONTROL = ("host.control.look_s=0.1", "host.control.idle_s=0.0", "host.control.timeout_s=60.0")


@pytest.fixture(scope="module")
def connected(adb_port, tmp_path_factory):
    """A stand-in that keeps what it was sent, known to adb."""
    forget = [adbutils.adb_path(), "disconnect"]
    subprocess.run(forget, check=False, capture_output=True)
    with StandIn(tmp_path_factory.mktemp("device")) as device:
        yield device
    subprocess.run(forget, check=False, capture_output=True)


@pytest.fixture
def standin(connected):
    connected.faults.reset()
    Connection.open(connected.address, wait_s=20)
    yield connected
    connected.faults.reset()
    connected.kill_processes()


def test_what_was_sent_to_a_device_is_removed(standin):
    phone = Connection.open(standin.address)
    phone.ask(f"mkdir -p {FOLDER}/files && echo 1 > {FOLDER}/files/part")
    lanes = {
        "auto": ["host=auto", f"host.serial='{standin.address}'"],
        "here": ["host=in_process"],
    }
    assert clean_up_devices("latency", lanes) == ["auto"]
    assert phone.shell(f"ls {FOLDER}").status != 0


def sweep(model, results, *overrides):
    return command(
        "device_bench.sweep", "hosts=[auto]", *ONE_POINT, *CONTROL, *model,
        f"paths.results={results}", *overrides,
    )  # fmt: skip


def statuses(results):
    records = load_records([results / "records" / this_machine().fingerprint])
    return [r.data["status"] for r in records]


def measured(record):
    """What was measured of each session."""
    return [s["session_measured"] for s in record.samples() if "session_measured" in s]


@pytest.fixture
def results(tmp_path):
    """A folder of records, and of the paper's cells that a report needs."""
    paper = config.CONF.parent / "results/paper"
    shutil.copytree(paper, tmp_path / "results/paper")
    return tmp_path / "results"


def running(device):
    run = device.local(FOLDER) / "job/run"
    if not (run / "pid").exists() or (run / "status").exists():
        return False  # which takes less of the processor than to look at all processes
    for process in device.processes():
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            if RUNNER in " ".join(process.cmdline()):
                return True
    return False


def once(device, happens, *, when=running):
    """Have something happen as soon as the runner runs, from a thread."""

    def strike():
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and not when(device):
            time.sleep(0.02)
        happens(device)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    return thread


def forget_pushed(device):
    shutil.rmtree(device.local(FOLDER), ignore_errors=True)


def part_of_the_encoder(model):
    (folder,) = (o.split("=", 1)[1] for o in model if o.startswith("checkpoint.folder"))
    (path,) = Path(folder).glob("fp32/executorch/encoder-*/model.pte")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ends(device):
    return (device.local(FOLDER) / "job/run/status").exists() and not running(device)


def cut_the_pull(device):
    sent = max(t._sent for t in device._transports)
    device.faults.drop_after_sent = sent + 3000


PUSHED_ANEW = ("cable out in a push", "disk full", "corrupted file")
FAULTS = {
    "cable out in a push": (lambda d, m: setattr(d.faults, "drop_after_received", 2**22),
                            "disconnected"),
    "cable out in a pull": (lambda d, m: once(d, cut_the_pull, when=ends), "disconnected"),
    "reboot": (lambda d, m: once(d, lambda d: d.reboot()), "rebooted"),
    "killed for memory": (lambda d, m: once(d, lambda d: d.kill_processes(name=RUNNER)), "killed"),
    "crash": (lambda d, m: once(d, lambda d: d.kill_processes(signal.SIGSEGV, RUNNER)), "crashed"),
    "disk full": (lambda d, m: setattr(d.faults, "free_bytes", 2**22), "disk_full"),
    "truncated output": (lambda d, m: setattr(d.faults, "truncate_pull", 50), "corrupted"),
    "corrupted file": (lambda d, m: setattr(d.faults, "corrupt", part_of_the_encoder(m)),
                       "corrupted"),
    "hang": (lambda d, m: once(d, lambda d: d.kill_processes(signal.SIGSTOP, RUNNER)), "timeout"),
}  # fmt: skip


@needs_compiler
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_record_and_the_same_command_goes_on(standin, model, results, fault):
    strike, outcome = FAULTS[fault]
    if fault in PUSHED_ANEW:
        forget_pushed(standin)
    strike(standin, model)
    struck = sweep(model, results, *(["host.control.timeout_s=4.0"] if fault == "hang" else []))
    assert struck.returncode == 1, struck.stdout
    assert f"new records: 1 {outcome}" in struck.stdout
    assert statuses(results) == [outcome]
    standin.faults.reset()
    Connection.open(standin.address, wait_s=20)
    again = sweep(model, results)
    assert again.returncode == 0, again.stdout + again.stderr
    assert statuses(results) == [outcome, "ok"]
    if fault == "crash":
        idle = sweep(model, results)
        assert "1 of 1 points done" in idle.stdout
        assert "new records: none" in idle.stdout
        (record,) = [r for r in load_records((results / "records").glob("*")) if r.ok]
        assert record.values["host"] == "standin"
        told = measured(record)[-1]
        assert told["memory"]["peak_resident_by_stage"]["captions"] > 0
        assert told["energy"]["joules"] is None
        assert told["energy"]["reason"] == "not measured (host.control.idle_s=0)"


@needs_compiler
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ["cable", "server"])
def test_what_comes_back_costs_nothing(standin, model, results, adb_port, what):
    kill = [adbutils.adb_path(), "kill-server"]
    happens = {
        "cable": lambda d: d.disconnect(),
        "server": lambda d: subprocess.run(kill, check=False, capture_output=True),
    }[what]
    once(standin, happens)
    done = sweep(model, results)
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(results) == ["ok"]


@needs_compiler
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_is_a_record_and_the_same_command_goes_on(standin, model, results, tmp_path):
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "device_bench.sweep", "hosts=[auto]", *ONE_POINT, *CONTROL,
             *model, "repeats=100", f"paths.results={results}"],
            cwd=ROOT, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    strike = once(standin, lambda _: os.killpg(process.pid, signal.SIGINT))
    strike.join(600)
    assert process.wait(60) == 130, log.read_text()
    assert "interrupted; run the same command to resume" in log.read_text()
    assert statuses(results) == ["interrupted"]
    assert not running(standin)
    assert sweep(model, results).returncode == 0
    assert statuses(results) == ["interrupted", "ok"]


@needs_compiler
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_device_that_refuses_and_one_that_is_measured_already(standin, model, results):
    standin.faults.deny_authorisation = True
    standin.disconnect()
    time.sleep(12)  # until adb has tried again
    refused = sweep(model, results)
    assert "new records: 1 unauthorised" in refused.stdout, refused.stdout + refused.stderr
    standin.faults.reset()
    standin.disconnect()
    Connection.open(standin.address, wait_s=30)
    first = config.build(config.compose("latency", ["host=auto"]).host)
    first._only_run_on(standin.address)
    busy = sweep(model, results)
    assert "new records: 1 busy" in busy.stdout, busy.stdout + busy.stderr
    first._state["lock"].close()
    assert sweep(model, results).returncode == 0
    assert statuses(results) == ["unauthorised", "busy", "ok"]


@needs_compiler
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_throttled_run_is_flagged_and_kept(standin, model, results):
    def warm_for_a_second(device):
        device.set_state("thermalservice", "Thermal Status: 3\n")
        time.sleep(1)
        device.set_state("thermalservice", "Thermal Status: 0\n")

    once(standin, warm_for_a_second)
    done = sweep(model, results, "host.guard.every_s=0.01", "job_clips=2")
    assert done.returncode == 0, done.stdout
    assert "new records: 1 ok, throttled" in done.stdout
    (record,) = load_records((results / "records").glob("*"))
    assert record.values["throttled"]
    watched = [told["watch"]["throttled"] for told in measured(record)]
    assert watched == [True, False]  # the second was held until it was over


@needs_compiler
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_devices_at_once_and_a_table_of_each(model, results):
    done = command(
        "device_bench.sweep", "hosts=[standin,standin]", *ONE_POINT, *model, "scale=tiny",
        f"paths.results={results}", "pipelines=[assembly]", "pipeline.least_similarity=-1.0",
        "pipeline.script_tokens=3", "residencies=[resident,reload_stage]",
        "schedules=[sequential,parallel]", "settings=generation", "dataset.test=2",
        # The small decoder has no positions for a script of captions of 12 tokens.
        "settings.length12=['generation.max_new_tokens=3']",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 points done" in done.stdout
    records = load_records((results / "records").glob("*"))
    assert [r.data["status"] for r in records] == ["ok"] * 6
    assert {r.config("host.number") for r in records} == {1, 2}
    tables = results / "local" / this_machine().fingerprint / "tables"
    for name, cell in (("table05", "/beam1"), ("table08", "/temporary"), ("energy", "empty: "),
                       ("table06", ", exported"), ("table03", "host standin")):  # fmt: skip
        text = (tables / f"{name}.md").read_text()
        assert cell in text, name
        assert "host standin" in text, name
