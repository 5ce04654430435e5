"""Forty clips, some broken, through the real runtime; and the slope's arithmetic."""

import numpy as np
import pytest

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.module_files import TRAINED
from atom_repro.datatypes import Clip
from atom_repro.device.cpu import Cpu
from atom_repro.device.memory import anonymous_bytes
from atom_repro.engines.eager import EagerEngine
from atom_repro.evaluation.endurance import Endurance, repeat_clips
from atom_repro.metrics.bootstrap import slope
from atom_repro.models.generation import GenerationSettings
from atom_repro.records.journal import Journal
from atom_repro.runtime.residency import module_loaders
from atom_repro.runtime.runtime import Arm, Runtime
from atom_repro.video.file import write_video


@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_forty_clips_are_all_answered_for(saved, model, tmp_path, schedule):
    originals = []
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
        write_video(tmp_path / f"{i}.mp4", pixels, 4)
        originals.append(Clip("toy", "test", f"c{i}", tmp_path / f"{i}.mp4"))
    clips, broken = repeat_clips(originals, 40, broken_every=10, folder=tmp_path / "broken")
    assert broken == ("c0#9", "c1#19", "c2#29", "c0#39")
    loaders = module_loaders(
        EagerEngine(), Checkpoint(saved), TRAINED, model, Cpu(), embedder="embedded"
    )
    arm = Arm(residency="resident", schedule=schedule, threads_alone=1)
    settings = GenerationSettings(beams=1, max_new_tokens=2)
    journal = tmp_path / "j.jsonl"
    journal.write_text('{"video_id": "of an earlier session"}\n')
    with Runtime(arm, loaders, Cpu(), model=model, settings=settings) as runtime:
        (result,) = Endurance(4, journal).run(runtime, clips)
        left = runtime.timeline.spans()
    with Journal(journal) as kept:
        lines = kept.done
    assert [line["video_id"] for line in lines] == [c.video_id for c in clips]
    assert result.failed == broken == tuple(r["video_id"] for r in lines if "detail" in r)
    assert result.captioned == 36
    assert result.at.tolist() == list(range(4, 41, 4))
    assert (result.memory_bytes > 10_000_000).all()
    assert len(left) < 10  # no spans are kept for the clips that are done


def test_anonymous_memory_sees_what_is_allocated():
    before = anonymous_bytes()
    held = np.ones(8_000_000)  # 64 MB, touched
    assert 60e6 < anonymous_bytes() - before < 70e6
    assert held.sum() > 0


def test_a_slope_of_a_line_is_exact_and_noise_widens_it():
    x = np.arange(0, 500, 5)
    line = slope(x, 3.0 * x + 7)
    assert (line.mean, line.low, line.high) == pytest.approx((3, 3, 3))
    rng = np.random.default_rng(0)
    flat = slope(x, rng.normal(0, 1e4, len(x)))
    assert flat.low < 0 < flat.high
    # Steps that come and go are alike for long: the interval must not be that of independent ones.
    steps = np.repeat(rng.normal(0, 1e4, 10), 10)
    stepped, shuffled = slope(x, steps), slope(x, rng.permutation(steps))
    assert stepped.high - stepped.low > 1.5 * (shuffled.high - shuffled.low)


@pytest.mark.parametrize("wrong", [([1, 2, 3], [1, 2, 3]), ([1, 1, 2, 3], [1, 2, 3, 4])])
def test_a_slope_needs_a_series(wrong):
    with pytest.raises(ValueError, match=r"series|increase"):
        slope(*wrong)
