"""Locks: one holder at a time, released with its process, and no file left behind."""

import subprocess
import sys

import pytest

from atom_repro.datatypes import AtomError
from atom_repro.records.lock import hold

HOLDER = """
import sys, time
from pathlib import Path
from atom_repro.records.lock import hold
lock = hold(Path(sys.argv[1]), "it", "x")
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_has_one_holder_and_leaves_nothing(tmp_path):
    path = tmp_path / "a/b.lock"
    with hold(path, tmp_path, "name another"):
        for _ in range(2):
            with pytest.raises(AtomError, match=rf"process \d+\) uses {tmp_path}; .* or name ano"):
                hold(path, tmp_path, "name another")
    assert list(path.parent.iterdir()) == []
    hold(path, tmp_path, "name another").close()


def test_a_killed_process_releases_its_lock(tmp_path):
    path = tmp_path / "b.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(AtomError, match=rf"another run \(process {holder.pid}\) uses it"):
            hold(path, "it", "x")
        holder.kill()
    hold(path, "it", "x").close()
    assert not path.exists()
