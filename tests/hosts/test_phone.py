"""Which device a host takes, and what it says where there is none; one command at a time on it."""

import subprocess

import adbutils
import pytest

from atom_repro import config
from atom_repro.adb.connection import Connection
from atom_repro.adb.faults import Busy, Disconnected, Unauthorised, WrongDevice
from atom_repro.adb.standin import StandIn
from atom_repro.device.machine import this_machine
from atom_repro.hosts.lanes import device_lanes
from atom_repro.hosts.phone import choose_device

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
PIXEL = {"ro.product.manufacturer": "Google", "ro.product.model": "Pixel 8a",
         "ro.soc.model": "Tensor G3", "ro.build.version.release": "16"}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_connected(adb_port):
    """No stand-in of another test that adb still waits for."""
    forget = [adbutils.adb_path(), "disconnect"]
    subprocess.run(forget, check=False, capture_output=True)
    yield
    subprocess.run(forget, check=False, capture_output=True)


def host(*overrides):
    return config.build(config.compose("latency", [*overrides]).host)


def test_no_device_says_what_to_do():
    with pytest.raises(Disconnected, match=r"no device: plug in a phone .* host=standin"):
        choose_device("", [])
    absent = host("host=auto")
    assert (absent.name, absent.machine) == ("phone", this_machine())
    with pytest.raises(Disconnected, match="no device"):
        absent.run(None, None, [], None)
    with pytest.raises(Disconnected, match="no device"):
        device_lanes("latency", ["auto"])
    assert device_lanes("latency", ["auto"], planned=True) == {"auto": ["host=auto"]}


def test_one_is_found_by_its_model_and_several_are_a_question(tmp_path):
    with (
        StandIn(tmp_path / "one", properties={"ro.product.model": "SM-S911B"}) as one,
        StandIn(tmp_path / "two", properties=PIXEL) as two,
    ):
        for each in (one, two):
            Connection.open(each.address)
        with pytest.raises(WrongDevice, match=r"several devices, .*: choose one, such as"):
            choose_device("", [])
        assert choose_device("", ["Pixel 8a"]) == two.address
        assert choose_device(one.address, []) == one.address
        with pytest.raises(WrongDevice, match="this host is for Pixel 5a; choose host=auto"):
            choose_device("", ["Pixel 5a"])
        with pytest.raises(WrongDevice, match="this host is for Pixel 8a"):
            choose_device(one.address, ["Pixel 8a"])
        assert device_lanes("latency", ["auto", "standin", "standin"]) == {
            f"auto {one.address}": ["host=auto", f"host.serial='{one.address}'"],
            f"auto {two.address}": ["host=auto", f"host.serial='{two.address}'"],
            "standin-1": ["host=standin", "host.number=1"],
            "standin-2": ["host=standin", "host.number=2"],
        }


def test_a_phone_is_a_machine_of_its_own_and_a_stand_in_says_that_it_is_one(tmp_path):
    as_phone = PIXEL | {"ro.boot.atom_standin": "0"}
    with StandIn(tmp_path / "one", properties=as_phone) as one:
        Connection.open(one.address)
        pixel = host("host=pixel_8a")
        assert pixel.name == "phone"
        assert pixel.machine.cpu == "Google Pixel 8a, Tensor G3"
        assert pixel.machine.os_release == "Android 16"
        assert pixel.machine.fingerprint != this_machine().fingerprint
        assert pixel.facts()["device"]["title"] == "Google Pixel 8a, Tensor G3"
    standin = host("host=standin", f"paths.work={tmp_path}")
    assert (standin.name, standin.machine) == ("standin", this_machine())


def test_a_device_that_does_not_accept_this_computer(device):
    device.faults.deny_authorisation = True
    with pytest.raises(Unauthorised):
        Connection.open(device.address)
    with pytest.raises(Unauthorised, match="allow USB debugging"):
        choose_device("", [])


def test_a_second_command_on_a_device_is_refused():
    first, second = host("host=auto"), host("host=auto")
    first._only_run_on("R5CT/1")
    first._only_run_on("R5CT/1")
    with pytest.raises(Busy, match="uses the device R5CT/1; wait for it, end it, or choose"):
        second._only_run_on("R5CT/1")
