"""Threads side by side: the split with the least predicted time, measured once and kept."""

import json
from dataclasses import replace
from itertools import product

import pytest
import torch

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.module_files import TRAINED
from atom_repro.datatypes import AtomError
from atom_repro.device.cpu import Cpu
from atom_repro.engines.eager import EagerEngine
from atom_repro.models.generation import GenerationSettings
from atom_repro.runtime import thread_split
from atom_repro.runtime.residency import module_loaders
from atom_repro.runtime.runtime import Arm
from atom_repro.runtime.setup import Setup
from atom_repro.runtime.thread_split import StageTimes, ThreadSplit, thread_counts

ARM = Arm(residency="resident", schedule="parallel", threads="calibrate")


@pytest.mark.parametrize(
    ("cores", "any_number", "counts"),
    [
        (1, True, [1]),
        (2, True, [1, 2]),
        (2, False, [1, 2]),
        (4, True, [1, 2, 3, 4]),
        (4, False, [1, 4]),
        (8, True, [1, 2, 4, 6, 7, 8]),
        (6, True, [1, 2, 4, 5, 6]),
        (8, False, [1, 8]),
    ],
)
def test_what_is_timed_grows_slowly_with_the_cores(cores, any_number, counts):
    assert thread_counts(cores, any_number=any_number) == counts


def ideal(work, counts):
    """Times of a module that all threads speed up alike."""
    return {n: work / n for n in counts}


def flat(work, counts):
    """Times of a module that further threads do not help."""
    return dict.fromkeys(counts, work)


@pytest.mark.parametrize(
    ("times", "best"),
    [
        # Even work on two cores: one each is as fast as taking turns, with fewer threads.
        (StageTimes(2, ideal(4.0, (1, 2)), ideal(4.0, (1, 2))), (1, 1)),
        # An encoder of four times the work would leave the decoder's core idle.
        (StageTimes(2, ideal(8.0, (1, 2)), ideal(2.0, (1, 2))), (2, 1)),
        (StageTimes(2, ideal(2.0, (1, 2)), ideal(8.0, (1, 2))), (1, 2)),
        # Threads that do not help are not taken, whatever the work.
        (StageTimes(2, flat(8.0, (1, 2)), flat(2.0, (1, 2))), (1, 1)),
        (StageTimes(4, ideal(6.0, (1, 2, 3, 4)), flat(1.5, (1, 2, 3, 4))), (3, 1)),
        (StageTimes(4, ideal(4.0, (1, 2, 3, 4)), ideal(4.0, (1, 2, 3, 4))), (2, 2)),
        # Of an engine with one thread or all.
        (StageTimes(4, ideal(6.0, (1, 4)), flat(1.5, (1, 4))), (4, 1)),
        (StageTimes(8, ideal(12.0, (1, 2, 4, 6, 7, 8)), ideal(4.0, (1, 2, 4, 6, 7, 8))), (6, 2)),
        (StageTimes(8, ideal(8.0, (1, 8)), ideal(1.0, (1, 8))), (8, 1)),
    ],
)
def test_the_split_of_least_predicted_time_is_chosen(times, best):
    assert times.best() == ThreadSplit(*best)
    assert times.to_dict()["chosen"] == "{}+{}".format(*best)
    assert StageTimes.from_dict(json.loads(json.dumps(times.to_dict()))) == times


def test_modules_with_more_threads_than_cores_take_turns():
    times = StageTimes(2, {1: 3.0, 2: 2.0}, {1: 1.5, 2: 1.0})
    assert times.predicted_s(ThreadSplit(1, 1)) == 3.0
    assert times.predicted_s(ThreadSplit(2, 2)) == 3.0  # one after the other
    assert times.predicted_s(ThreadSplit(2, 1)) == 2.75  # 2.25 s at two thirds, then 0.5 alone


@pytest.fixture
def setup(saved, model):
    return Setup(
        model=model, dataset=None, engine=EagerEngine(), quantiser=TRAINED, visual_stages=(),
        device=Cpu(), checkpoint=Checkpoint(saved),
        generation=GenerationSettings(beams=2, max_new_tokens=3), embedder="embedded", seed=0,
        random_weights=False, components={"model": {"name": model.name}},
    )  # fmt: skip


def test_a_session_has_the_split_and_calibrates_once(setup, monkeypatch):
    measured = []

    def measure(loaders, model, settings, **options):
        measured.append(options)
        return StageTimes(2, {1: 5.0, 2: 2.5}, {1: 1.0, 2: 0.9})

    monkeypatch.setattr("atom_repro.runtime.setup.measure_stages", measure)
    for _ in range(2):
        with setup.session(ARM) as runtime:
            assert runtime.arm.split == ThreadSplit(2, 1)
            assert [runtime.arm.lane_threads(n) for n in ("encoder", "decoder")] == [2, 1]
    assert len(measured) == 1
    assert measured[0]["any_number"]
    assert setup.thread_values([ARM])["thread_split"]["chosen"] == "2+1"
    # What asks for no calibration has none, and another number of clips a step has its own.
    for other in (replace(ARM, threads="fixed"), replace(ARM, schedule="sequential")):
        assert setup.thread_values([other]) == {}
        with setup.session(other) as runtime:
            assert runtime.arm.split is None
    assert len(measured) == 1
    setup.stage_times(replace(ARM, decode_batch=3))
    assert [options["decode_batch"] for options in measured] == [1, 3]


def test_a_damaged_file_of_times_is_measured_again(setup, monkeypatch):
    times = StageTimes(2, {1: 1.0, 2: 1.0}, {1: 1.0, 2: 1.0})
    monkeypatch.setattr("atom_repro.runtime.setup.measure_stages", lambda *_, **__: times)
    setup.stage_times(ARM)
    (path,) = (setup.checkpoint.folder / "threads").iterdir()
    for text in ("", "[]", '{"cores": 2}'):
        path.write_text(text)
        assert setup.stage_times(ARM) == times
        assert json.loads(path.read_text())["chosen"] == "1+1"


def test_both_modules_are_timed_with_each_number_of_threads(saved, model, monkeypatch):
    monkeypatch.setattr(thread_split, "_ENOUGH_S", 0.0)
    used = []

    class Watched(EagerEngine):
        def load_encoder(self, *arguments):
            return watched(super().load_encoder(*arguments), "__call__")

        def load_decoder(self, *arguments):
            return watched(super().load_decoder(*arguments), "generate")

    def watched(module, name):
        kind = type(module)

        def call(self, *arguments):
            used.append((name, torch.get_num_threads()))
            return getattr(kind, name)(self, *arguments)

        module.__class__ = type(kind.__name__, (kind,), {name: call})
        return module

    loaders = module_loaders(
        Watched(), Checkpoint(saved), TRAINED, model, Cpu(), embedder="embedded"
    )
    settings = GenerationSettings(beams=2, max_new_tokens=3)
    before = torch.get_num_threads()
    times = thread_split.measure_stages(
        loaders, model, settings, cores=2, any_number=True, decode_batch=2
    )
    assert used[0] == ("__call__", before)  # the visual tokens that the decoder is timed with
    assert set(used[1:]) == set(product(("__call__", "generate"), (1, 2)))
    assert torch.get_num_threads() == before
    assert set(times.encode_s) == set(times.caption_s) == {1, 2}
    assert all(s > 0 for s in (*times.encode_s.values(), *times.caption_s.values()))


def test_an_unknown_choice_is_one_line():
    with pytest.raises(AtomError, match=r"runtime\.threads 'guess' is none of fixed, calibrate"):
        replace(ARM, threads="guess")
