"""The adb that adbutils carries and the system's, often years older, both work with a stand-in."""

import random
import shutil
import socket
import subprocess

import adbutils
import pytest

from atom_repro.adb.connection import Connection
from atom_repro.adb.faults import Crashed
from atom_repro.adb.job import Job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
SYSTEM = shutil.which("adb")
HOME = "/data/local/tmp/atom"


@pytest.fixture(
    params=[
        pytest.param(adbutils.adb_path(), id="adbutils"),
        pytest.param(
            SYSTEM,
            id="system",
            marks=pytest.mark.skipif(SYSTEM is None, reason="no adb: `apt install adb`"),
        ),
    ]
)
def adb(request, device, monkeypatch, tmp_path_factory):
    """Run an adb command on the stand-in, with a server of that adb."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))

    def run(*words, **options):
        return subprocess.run(
            [request.param, *words], capture_output=True, text=True, check=False, timeout=60,
            **options,
        )  # fmt: skip

    assert run("start-server").returncode == 0
    assert f"connected to {device.address}" in run("connect", device.address).stdout

    yield lambda *words, **options: run("-s", device.address, *words, **options)
    run("kill-server")


def test_its_shell_has_exit_codes_and_two_outputs(adb):
    done = adb("shell", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert adb("shell", "getprop", "ro.product.model").stdout == "stand-in\n"
    assert adb("shell", "wc -c", input="six by").stdout == "6\n"
    assert adb("exec-out", "printf 'a\\r\\nb'").stdout == "a\nb"  # of text, as subprocess reads it
    assert adb("shell", "seq 50000").stdout.endswith("\n50000\n")


def test_it_carries_files_and_folders_both_ways(adb, device, tmp_path):
    sent = tmp_path / "a folder's é"
    (sent / "inner").mkdir(parents=True)
    (sent / "inner/large $(x)").write_bytes(random.Random(0).randbytes(3 * 2**20 + 5))
    (sent / "empty").touch()
    (sent / "link").symlink_to("empty")
    assert adb("push", str(sent), f"{HOME}/there").returncode == 0
    assert device.local(f"{HOME}/there/inner/large $(x)").is_file()
    assert set(adb("shell", "ls", f"{HOME}/there").stdout.split()) >= {"empty", "inner"}
    assert adb("pull", f"{HOME}/there", str(tmp_path / "back")).returncode == 0
    names = [path.relative_to(sent) for path in sent.rglob("*") if path.is_file()]
    assert len(names) >= 2
    for name in names:
        if not (sent / name).is_symlink():  # whose fate differs between versions of adb
            assert (tmp_path / "back" / name).read_bytes() == (sent / name).read_bytes()
    missing = adb("pull", f"{HOME}/none", str(tmp_path / "none"))
    assert missing.returncode == 1
    assert "No such file" in missing.stderr + missing.stdout


def test_files_and_jobs_of_ours_go_through_it(adb, device, tmp_path):
    phone = Connection.open(device.address)
    local = tmp_path / "model.bin"
    local.write_bytes(random.Random(1).randbytes(2**21 + 3))
    phone.ask(f"mkdir -p {HOME}")
    phone.push(local, f"{HOME}/model.bin")
    job = Job.start(phone, f"{HOME}/run", "wc -c < ../model.bin")
    job.wait(timeout_s=30, every_s=0.1)
    phone.pull(f"{HOME}/run/stdout", tmp_path / "count")
    assert int((tmp_path / "count").read_text()) == local.stat().st_size
    with pytest.raises(Crashed, match="status 3"):
        Job.start(phone, f"{HOME}/run", "exit 3").wait(timeout_s=30, every_s=0.1)
    job = Job.start(phone, f"{HOME}/run", "sleep 2; echo done")
    device.disconnect()
    job.wait(timeout_s=60, every_s=0.1)
    assert device.local(f"{HOME}/run/stdout").read_text() == "done\n"
    phone.close()
