"""Commands of the README that build on no other, and those that lack something and say so."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys

import adbutils
import pytest
import torch
from command import command as run_command
from readme_commands import (
    ALONE,
    COMMANDS,
    DEMO,
    NARROWS,
    NEED_DATA,
    NEED_WEIGHTS,
    NEEDS_GPU,
    NEEDS_PHONE,
    REPEATS,
    ROOT,
    STANDIN,
    run,
    shrunk,
)

from atom_repro.device.machine import this_machine
from atom_repro.records.record import load_records

DATA = ROOT.parent / "shared/data"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme-alone")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=pytest.mark.long) if c.endswith(REPEATS) else c
        for c in COMMANDS
        if c.startswith(ALONE) and (torch.cuda.is_available() or NEEDS_GPU not in c)
    ],
)
def test_command(command, folder):
    run(shrunk(command, folder))


def test_a_stand_in_serves_until_it_is_interrupted(tmp_path):
    words = [sys.executable, *shlex.split(STANDIN)[1:], "port=0", f"paths.work={tmp_path}"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            first = process.stdout.readline()
            address = re.match(r"stand-in device at (127\.0\.0\.1):(\d+)", first)
            assert address, first
            socket.create_connection((address[1], int(address[2]))).close()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
    refused = run_command("device_bench.standin", "port=5555", f"paths.work={tmp_path}")
    assert refused.returncode == 1
    assert "port 5555: adb takes those from 5555 to 5585" in refused.stderr


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_demo_of_devices_fills_their_tables(tmp_path, adb_port):
    shutil.copytree(ROOT / "results/paper", tmp_path / "results/paper")
    out = run(shrunk(DEMO, tmp_path))
    assert "6 of 6 points done" in out
    tables = tmp_path / "results/local" / this_machine().fingerprint / "tables"
    for name in ("table03", "table05", "table06", "table08", "energy"):
        assert "host standin" in (tables / f"{name}.md").read_text(), name


def test_a_command_without_its_phone_says_what_to_do(tmp_path, adb_port):
    subprocess.run([adbutils.adb_path(), "disconnect"], check=False, capture_output=True)
    done = subprocess.run(
        shrunk(NEEDS_PHONE, tmp_path), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2  # make's own
    (line,) = [t for t in done.stderr.splitlines() if t.startswith("error: ")]
    assert "no device: plug in a phone" in line
    assert "host=standin" in line


@pytest.mark.long
def test_an_override_narrows_the_study(tmp_path):
    run(shrunk(NARROWS, tmp_path))
    made = load_records([tmp_path / "results/records" / this_machine().fingerprint])
    assert [r.values["precision"] for r in made if r.stage != "finetune"] == ["int8"] * 5
    (trained,) = [r for r in made if r.stage == "finetune"]
    assert trained.config("train.max_steps") == 5


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(NEED_WEIGHTS)])
def test_a_command_without_its_weights_says_what_to_bring(command):
    done = run_command(*shlex.split(command)[2:])
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "sources." in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", [c for c in COMMANDS if NEEDS_GPU in c])
def test_a_command_without_its_gpu_says_what_to_do(command, tmp_path):
    done = subprocess.run(
        shrunk(command, tmp_path), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    (line,) = [t for t in done.stderr.splitlines() if t.startswith("error: ")]
    assert "sees 0 GPUs" in line
    assert "device=cpu" in line


@pytest.mark.parametrize("command", NEED_DATA)
def test_a_command_without_its_data_says_what_to_bring(command, folder):
    done = subprocess.run(
        shrunk(command, folder), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2  # make's own
    (line,) = [t for t in done.stderr.splitlines() if t.startswith("error: ")]
    assert "stsb-en-test.csv" in line or "eval.data_check" in line


@pytest.mark.long
@pytest.mark.skipif(not DATA.is_dir(), reason="the annotation files are not beside this checkout")
def test_human_captions_run_on_one_protocol(folder):
    words = shrunk("make human-captions ARGS=only=[msrvtt/ret-1ka]", folder)
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"ATOM_DATA": str(DATA)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_names_every_target():
    targets = re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    named = {shlex.split(c)[1] for c in COMMANDS if c.startswith("make")}
    assert set(targets) - named <= {"lock", "clean"}
