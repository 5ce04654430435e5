"""What a thousand windows leave behind: nothing, also where reading stops in mid-file."""

import ctypes
import sys

import numpy as np
import pytest
from command import forked

from atom_repro.video.file import write_video
from atom_repro.video.sampling import read_frames


class Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def bytes_left(path):
    """Allocated bytes that each window leaves behind, three times; None where glibc keeps none."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = Mallinfo2

    def read(times):
        for _ in range(times):
            read_frames(path, frames=2, size=16, sampling="centre", end_s=2.0)
        return libc.mallinfo2().uordblks

    read(50)
    left = []
    for _ in range(3):  # what else this process keeps comes and goes; a leak comes each time
        before = read(10)
        left.append((read(400) - before) / 400)
    return left


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc for its books")
def test_a_reader_that_stops_in_mid_file_leaves_nothing_behind(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", pixels, 4)
    # By itself: threads of other tests allocate meanwhile.
    left = forked(bytes_left, tmp_path / "a.mp4")
    if left is None:
        pytest.skip("this C library keeps no mallinfo2")
    assert min(left) < 20, f"{left} bytes for each window"
