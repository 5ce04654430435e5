"""Every family computes on whatever device its weights and inputs lie on."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("elsewhere.py")


@pytest.mark.parametrize("name", ["tiny_mplug2plus", "tiny_mplug2", "smolvlm2_256m"])
def test_no_tensor_is_left_on_the_host(name):
    # In a process of its own: a device that torch was told of cannot be taken back.
    ran = subprocess.run([sys.executable, SCRIPT, name], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.split() == ["elsewhere"] * 4  # visual tokens, first logits, next logits, loss
