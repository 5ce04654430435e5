"""Commands, files and jobs on a stand-in device through a real adb server, also when it fails."""

import gc
import hashlib
import random
import signal
import subprocess
import threading
import time

import adbutils
import pytest

from atom_repro.adb import connection as connections
from atom_repro.adb.connection import Connection, quoted, serials
from atom_repro.adb.faults import (
    Busy,
    Corrupted,
    Crashed,
    DeviceError,
    Disconnected,
    DiskFull,
    Killed,
    Rebooted,
    TimedOut,
    Unauthorised,
)
from atom_repro.adb.job import Job
from atom_repro.adb.probe import device_facts, device_state
from atom_repro.adb.standin import StandIn

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
HOME = "/data/local/tmp/atom"
# What a shell would make something of.
NAMES = [
    "a b", "it's", 'say "x"', "$(touch owned)", "`id`", "line\nbreak", "é→", "-n",
    "*", "a;b", "a\\b",
]  # fmt: skip


@pytest.fixture
def big(tmp_path, monkeypatch):
    """A file of several parts."""
    monkeypatch.setattr(connections, "PART_BYTES", 2**20)
    path = tmp_path / "model.bin"
    path.write_bytes(random.Random(0).randbytes(5 * 2**20 + 17))
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_command_has_its_own_status_and_both_outputs(phone):
    output = phone.shell("echo out; echo err >&2; exit_with() { return 7; }; exit_with")
    assert (output.status, output.text, output.stderr) == (7, "out", b"err\n")
    assert phone.shell("printf 'no line break'").text == "no line break"
    assert phone.shell("seq 100000").text.endswith("\n100000")
    assert phone.ask(f"printf %s {quoted(*NAMES)} | wc -c") == str(len("".join(NAMES).encode()))
    with pytest.raises(DeviceError, match="ended with 3: wrong"):
        phone.ask("echo wrong >&2; exit 3")


def test_a_command_that_ends_its_own_shell_is_no_success(phone):
    with pytest.raises(Disconnected, match="went away during"):
        phone.shell("kill -9 $$")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_travels_there_and_back(phone, device, tmp_path, name):
    sent = tmp_path / "sent"
    sent.mkdir()
    (sent / name).write_bytes(b"content of " + name.encode())
    remote = f"{HOME}/{name}/{name}"
    phone.ask(f"mkdir -p {quoted(f'{HOME}/{name}')}")
    phone.push(sent / name, remote)
    phone.pull(remote, tmp_path / "back" / name)
    assert digest(tmp_path / "back" / name) == digest(sent / name)
    phone.remove(f"{HOME}/{name}")
    assert not device.local(f"{HOME}/{name}").exists()
    assert not list(device.root.rglob("owned"))


def test_a_file_is_joined_from_its_parts_and_sent_once(phone, device, big):
    sent = []
    phone.push(big, f"{HOME}/model.bin", sent.append)
    assert sent == [2**20] * 5 + [17]
    assert digest(device.local(f"{HOME}/model.bin")) == digest(big)
    assert [p.name for p in device.local(HOME).iterdir()] == ["model.bin"]
    device.faults.free_bytes = 0  # whatever were sent now would fail
    phone.push(big, f"{HOME}/model.bin")


def test_files_that_are_there_are_read_once(phone, device, big, tmp_path, monkeypatch):
    small = tmp_path / NAMES[-1]
    small.write_text("small")
    files, sent, read = [(big, f"{HOME}/model.bin"), (small, f"{HOME}/{small.name}")], {}, []
    shell = Connection.shell

    def noted(connection, command, **more):
        names = "model.bin", "small"
        read.extend(name for name in names if f"sha256sum < {HOME}/{name}" in command)
        return shell(connection, command, **more)

    monkeypatch.setattr(Connection, "shell", noted)
    phone.push_missing(files, sent=sent)
    assert digest(device.local(files[1][1])) == digest(small)
    phone.push_missing(files, sent=sent)  # as another session finds them
    assert sent.keys() == {remote for _, remote in files}
    read.clear()
    passed = []
    device.faults.free_bytes = 0  # whatever were sent now would fail
    phone.push_missing(files, passed.append, sent=sent)
    assert read == [] and passed == [big.stat().st_size, 5]
    device.faults.reset()
    device.local(f"{HOME}/model.bin").write_bytes(b"another")
    phone.push_missing(files, sent=sent)
    assert "model.bin" in read and digest(device.local(f"{HOME}/model.bin")) == digest(big)
    small.write_text("other")
    phone.push_missing(files, sent=sent)
    assert device.local(files[1][1]).read_text() == "other"


def test_many_commands_have_an_output_each(phone):
    commands = ["echo one", "false", "printf 'two\\nlines'", *[f"echo {'x' * 500}"] * 9]
    texts = phone.texts(commands)
    assert texts == ["one", "", "two\nlines", *["x" * 500] * 9]
    assert phone.texts([]) == []


def test_a_broken_push_goes_on_where_it_stopped(phone, device, big):
    device.faults.drop_after_received = 3 * 2**20
    with pytest.raises(Disconnected):
        phone.push(big, f"{HOME}/model.bin")
    device.faults.reset()
    phone.check(wait_s=20)
    there = sorted(device.local(f"{HOME}/model.bin.parts").iterdir())
    whole = [p for p in there if p.stat().st_size == 2**20]
    assert len(whole) == 2
    before = {p.name: p.stat().st_mtime_ns for p in whole}
    for p in whole:  # so that sending one again would show
        p.touch()
        before[p.name] = p.stat().st_mtime_ns
    received = device.faults.drop_after_received = 4 * 2**20  # not enough for all five
    phone.push(big, f"{HOME}/model.bin")
    assert received < big.stat().st_size
    assert digest(device.local(f"{HOME}/model.bin")) == digest(big)


def test_a_full_disk_is_said_before_and_while_sending(phone, device, big, monkeypatch):
    device.faults.free_bytes = 2**20
    with pytest.raises(DiskFull, match="No space left on device; free some"):
        phone.push(big, f"{HOME}/model.bin")
    device.faults.reset()
    monkeypatch.setattr(Connection, "free_bytes", lambda *_: 2**20)
    with pytest.raises(DiskFull, match=r"has 1 MB free, and model.bin needs \d+"):
        phone.push(big, f"{HOME}/other.bin")


def test_what_arrives_otherwise_than_it_was_sent_is_removed(phone, device, big, tmp_path):
    device.faults.corrupt = hashlib.sha256(big.read_bytes()[: 2**20]).hexdigest()
    with pytest.raises(Corrupted, match="is not what was sent"):
        phone.push(big, f"{HOME}/model.bin")
    device.faults.reset()
    phone.push(big, f"{HOME}/model.bin")
    device.faults.truncate_pull = 2**20
    with pytest.raises(Corrupted, match="came incomplete"):
        phone.pull(f"{HOME}/model.bin", tmp_path / "back.bin")
    assert not (tmp_path / "back.bin").exists()
    with pytest.raises(DeviceError, match="has no /data/local/tmp/atom/none"):
        phone.pull(f"{HOME}/none", tmp_path / "none")


def test_a_cable_that_is_pulled_during_a_pull_leaves_no_file(phone, device, big, tmp_path):
    phone.push(big, f"{HOME}/model.bin")
    device.faults.drop_after_sent = 2**20
    with pytest.raises(Disconnected):
        phone.pull(f"{HOME}/model.bin", tmp_path / "back.bin")
    assert not (tmp_path / "back.bin").exists()
    device.faults.reset()
    phone.check(wait_s=20)
    phone.pull(f"{HOME}/model.bin", tmp_path / "back.bin")
    assert digest(tmp_path / "back.bin") == digest(big)


def test_a_device_that_refuses_this_computer_says_what_to_do(device, adb_port):
    device.faults.deny_authorisation = True
    with pytest.raises(Unauthorised, match="allow USB debugging"):
        Connection.open(device.address)


def test_no_device_says_what_adb_sees(phone, adb_port):
    with pytest.raises(Disconnected, match=r"R5CT is not there; adb sees 127.0.0.1:\d+"):
        Connection.open("R5CT", wait_s=0)
    assert serials() == [phone.serial]


def after(seconds, work):
    timer = threading.Timer(seconds, work)
    timer.start()
    return timer


def run(phone, command, **waiting):
    job = Job.start(phone, f"{HOME}/run", command)
    job.wait(**{"timeout_s": 60, "every_s": 0.1} | waiting)
    return job


def test_a_job_leaves_its_outputs(phone, device):
    run(phone, 'echo "here: $PWD"; echo log >&2')
    folder = device.local(f"{HOME}/run")
    assert (folder / "stdout").read_text().endswith("/data/local/tmp/atom/run\n")
    assert (folder / "stderr").read_text() == "log\n"


def test_a_second_job_is_refused_while_one_runs(phone):
    job = Job.start(phone, f"{HOME}/run", "sleep 60")
    while not job.alive():
        time.sleep(0.05)
    with pytest.raises(Busy, match="another run"):
        Job.start(phone, f"{HOME}/run", "true")
    job.stop()
    assert not job.alive()


@pytest.mark.parametrize("began", [True, False], ids=["its answer is lost", "it never arrives"])
def test_a_cable_that_is_pulled_as_a_job_starts_costs_nothing(phone, device, monkeypatch, began):
    ask, lost = Connection.ask, []

    def cut_once(connection, command, **more):
        if "setsid" in command and not lost:
            lost.append(command)
            if began:
                ask(connection, command, **more)
            device.disconnect()
            raise Disconnected("the cable is out")
        return ask(connection, command, **more)

    monkeypatch.setattr(Connection, "ask", cut_once)
    job = Job.start(phone, f"{HOME}/run", "echo ran >> ../times")
    job.wait(timeout_s=60, every_s=0.1)
    assert lost and device.local(f"{HOME}/times").read_text() == "ran\n"


def test_a_device_that_starts_anew_as_a_job_starts_is_told_apart(phone, device, monkeypatch):
    ask = Connection.ask

    def reboot(connection, command, **more):
        if "setsid" in command:
            device.reboot()
            raise Disconnected("the device went away")
        return ask(connection, command, **more)

    monkeypatch.setattr(Connection, "ask", reboot)
    with pytest.raises(Rebooted, match="started anew during the run"):
        Job.start(phone, f"{HOME}/run", "true")


def test_a_job_goes_on_while_the_cable_is_out(phone, device):
    after(0.5, device.disconnect)
    run(phone, "sleep 3; echo done")
    assert device.local(f"{HOME}/run/stdout").read_text() == "done\n"


# adbutils leaves the socket of a refused connection to the collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_job_outlives_the_adb_server(phone, device, adb_port):
    kill = [adbutils.adb_path(), "kill-server"]
    after(0.5, lambda: subprocess.run(kill, check=False, capture_output=True))
    run(phone, "sleep 3; echo done")
    assert device.local(f"{HOME}/run/stdout").read_text() == "done\n"
    gc.collect()


# adbutils leaves the socket of a refused connection to the collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_an_adb_server_that_ends_between_two_commands_costs_nothing(phone, tmp_path):
    phone.ask(f"mkdir -p {HOME} && echo here > {HOME}/left")
    for _ in range(2):
        subprocess.run([adbutils.adb_path(), "kill-server"], check=False, capture_output=True)
        phone.pull(f"{HOME}/left", tmp_path / "left")
        assert (tmp_path / "left").read_text() == "here\n"
    gc.collect()


@pytest.mark.parametrize(
    ("command", "happens", "error", "message"),
    [
        ("sleep 60", lambda d: d.reboot(), Rebooted, "started anew during the run"),
        ("sleep 60", lambda d: d.kill_processes(), Killed, "killed the run and its shell"),
        ("sleep 60", lambda d: d.kill_processes(name="sleep 60"), Killed, "lack of memory"),
        ("sh -c 'kill -SEGV $$'", lambda _: None, Crashed, "ended by signal 11"),
        ("echo why >&2; exit 4", lambda _: None, Crashed, "status 4: why"),
    ],
)
def test_what_ends_a_job_is_told_apart(phone, device, command, happens, error, message):
    after(1.0, lambda: happens(device))
    with pytest.raises(error, match=message):
        run(phone, command)
    assert error.outcome in {"rebooted", "killed", "crashed"}
    # Nothing of it is in the way of the next.
    phone.check(wait_s=20)
    run(phone, "true")


def test_a_job_past_its_deadline_is_ended_with_its_children(phone, device):
    with pytest.raises(TimedOut, match="did not end within 1 s"):
        run(phone, "sleep 61 & sleep 62; wait", timeout_s=1)
    assert not [p for p in device.processes() if "sleep 6" in " ".join(p.cmdline())]


def test_a_device_that_stays_away_is_said(phone, device):
    after(0.3, device.stop)
    with pytest.raises(Disconnected):
        run(phone, "sleep 60", back_within_s=1)


def test_facts_and_state_of_a_device(phone, device):
    facts = device_facts(phone)
    assert facts.standin
    assert (facts.manufacturer, facts.model) == ("atom-repro", "stand-in")
    assert facts.memory_bytes > 2**30
    assert sum(cores for _, cores in facts.clusters) >= 1
    state = device_state(phone)
    assert (state.battery_percent, state.battery_celsius, state.charging) == (100, 30.0, True)
    assert state.zones_celsius == {"standin": 30.0}
    assert not state.throttles
    device.set_state("thermalservice", "Thermal Status: 3\n")
    device.set_state("battery", "  level: 17\n  temperature: 412\n")
    state = device_state(phone)
    assert state.throttles
    assert (state.battery_percent, state.battery_celsius, state.charging) == (17, 41.2, None)


def test_two_devices_are_two(device, phone, tmp_path, adb_port):
    with StandIn(tmp_path / "other", properties={"ro.product.model": "other"}) as second:
        other = Connection.open(second.address)
        assert [device_facts(one).model for one in (phone, other)] == ["stand-in", "other"]
        assert phone.boot_id() != other.boot_id()
        after(0.2, lambda: second.kill_processes(signal.SIGTERM))
        run(phone, "sleep 1")
