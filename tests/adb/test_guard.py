"""Waiting for a cool and charged device, and watching it, on a stand-in that warms and cools."""

import threading

import pytest

from atom_repro.adb.faults import NotReady
from atom_repro.adb.guard import Guard, Watch
from atom_repro.adb.probe import DeviceState

GUARD = Guard(celsius=37.0, battery_percent=30, deadline_s=0.3, every_s=0.1)
COOL = DeviceState(80, 31.0, False, 0, {"skin": 31.0}, ("schedutil",), 10**9)


def battery(level, tenths):
    return f"  level: {level}\n  temperature: {tenths}\n  USB powered: true\n"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"battery_celsius": 37.0, "battery_percent": 30}, ""),
        ({"battery_celsius": None, "battery_percent": None, "thermal_status": None}, ""),
        ({"battery_celsius": 37.1}, "37.1 °C, more than 37"),
        ({"battery_percent": 29}, "at 29 %, below 30"),
        ({"thermal_status": 1}, "thermal status is light"),
    ],
)
def test_what_is_ready(changes, reason):
    state = DeviceState(**{**COOL.__dict__, **changes})
    assert (reason in GUARD.unready(state)) if reason else GUARD.unready(state) == ""


@pytest.mark.slow
def test_a_run_is_held_until_the_device_is_cool(phone, device):
    device.set_state("battery", battery(90, 401))
    threading.Timer(0.5, device.set_state, ("battery", battery(90, 365))).start()
    told = []
    waited = Guard(37.0, 30, deadline_s=30, every_s=0.1).wait(phone, told.append)
    assert waited > 0.4
    assert len(told) == 1
    assert "its battery has 40.1 °C, more than 37; waiting" in told[0]


@pytest.mark.slow
def test_past_the_deadline_it_is_a_typed_outcome(phone, device):
    device.set_state("battery", battery(12, 300))
    with pytest.raises(NotReady, match="at 12 %, below 30; let it cool and charge") as caught:
        GUARD.wait(phone)
    assert caught.value.outcome == "not_ready"


@pytest.mark.slow
def test_a_device_that_throttles_is_seen_and_no_error(phone, device):
    watch = Watch(phone, every_s=0.0)
    watch()
    assert not watch.to_dict()["throttled"]
    device.set_state("thermalservice", "Thermal Status: 3\n")
    watch()
    device.set_state("thermalservice", "Thermal Status: 0\n")
    watch.look()
    seen = watch.to_dict()
    assert seen["throttled"]
    assert [s["thermal_status"] for s in seen["states"]] == [0, 3, 0]
    assert seen["states"][0]["hottest_zone"] == "standin"
    assert seen["zones_celsius"] == [{"standin": 30.0}] * 2
    # It asks no more often than it was told to.
    seldom = Watch(phone, every_s=60.0)
    seldom()
    seldom()
    assert len(seldom.states) == 1
