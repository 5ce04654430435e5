"""Every family computes on whatever device its weights and inputs lie on."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("elsewhere.py")
FAMILIES = ("tiny_mplug2plus", "tiny_mplug2", "smolvlm2_256m")


@pytest.fixture(scope="module")
def devices():
    """Where visual tokens, first logits, next logits and loss lie, a family."""
    # In a process of its own: a device that torch was told of cannot be taken back.
    ran = subprocess.run([sys.executable, SCRIPT, *FAMILIES], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return dict(zip(FAMILIES, map(str.split, ran.stdout.splitlines()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_no_tensor_is_left_on_the_host(devices, name):
    assert devices[name] == ["elsewhere"] * 4
