"""Energy from counters: units, signs, what is no figure, and a stand-in that serves both kinds."""

import time

import pytest

from atom_repro.adb.energy import (
    BATTERY,
    NOTHING,
    RAILS,
    Energy,
    Reading,
    energy_between,
    read_counters,
)


def on_battery(currents, *, voltage=4_000_000, status="Discharging"):
    return [Reading(10.0 + i, {}, status, c, voltage) for i, c in enumerate(currents)]


def of_rails(*counts):
    return [Reading(float(i), dict(zip("ab", each, strict=True)), "", None, None)
            for i, each in enumerate(counts)]  # fmt: skip


@pytest.mark.parametrize("currents", [[-500_000] * 3, [500_000] * 3, [-500] * 3, [500] * 3])
def test_any_sign_in_microamperes_or_milliamperes(currents):
    energy = energy_between(on_battery(currents))
    assert (energy.source, energy.reason) == (BATTERY, "")
    assert energy.joules == pytest.approx(2 * 0.5 * 4.0)  # two seconds of 2 W
    assert energy.watts == pytest.approx(2.0)


def test_power_between_readings_is_taken_as_its_mean():
    assert energy_between(on_battery([100_000, 300_000])).joules == pytest.approx(0.2 * 4.0)


@pytest.mark.parametrize(
    ("readings", "reason"),
    [
        (on_battery([500_000]), "fewer than two"),
        (on_battery([500_000, -500_000]), "changed its sign"),
        (on_battery([500_000] * 2, status="Charging"), "charging on the cable"),
        (on_battery([500_000] * 2, status="Full"), "full on the cable"),
        (on_battery([500_000, None]), "could not be read all the time"),
        (on_battery([0, 0]), "none in microamperes"),
        (on_battery([50_000_000] * 2), "none in microamperes"),
        (on_battery([500_000] * 2, voltage=4_000), "none of a battery"),
        (on_battery([None, None]), NOTHING),
        (of_rails((5, 5), (5, 5)), "did not move"),
        (of_rails((5, 5), (9, 1)), "began anew"),
    ],
)
def test_what_is_no_figure_says_why(readings, reason):
    energy = energy_between(readings)
    assert energy.joules is None
    assert reason in energy.reason


def test_rails_count_what_flows_through_each():
    energy = energy_between(of_rails((0, 10**6), (10**6, 3 * 10**6), (2 * 10**6, 5 * 10**6)))
    assert (energy.source, energy.joules) == (RAILS, 6.0)
    assert energy.by_rail == {"a": 2.0, "b": 4.0}


def test_the_device_at_rest_is_subtracted_or_the_reason_stands_there():
    work, rest = Energy(10.0, 30.0, RAILS), Energy(5.0, 5.0, RAILS)
    assert work.above(rest) == {
        "source": RAILS, "seconds": 10.0, "gross_joules": 30.0, "idle_watts": 1.0, "joules": 20.0,
        "reason": "", "joules_by_rail": {},
    }  # fmt: skip
    alone = work.above(Energy(0.0, None, reason="not measured"))
    assert alone["joules"] is None
    assert alone["reason"] == "no baseline of the device at rest (not measured)"
    assert work.above(Energy(5.0, 5.0, BATTERY))["joules"] is None
    nothing = Energy(10.0, None, reason=NOTHING).above(rest)
    assert (nothing["joules"], nothing["reason"]) == (None, NOTHING)


@pytest.mark.slow
@pytest.mark.parametrize("rails", [False, True])
def test_a_stand_in_serves_counters(phone, device, rails):
    assert energy_between([read_counters(phone)] * 2).reason == NOTHING
    device.set_power(2.0, rails=rails)
    time.sleep(0.1)
    first = read_counters(phone)
    time.sleep(0.5)
    energy = energy_between([first, read_counters(phone)])
    assert energy.source == (RAILS if rails else BATTERY)
    assert energy.watts == pytest.approx(2.0, rel=0.3)
