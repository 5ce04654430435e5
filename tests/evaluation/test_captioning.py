"""Captions of clips: batched equals single, kept for the next run, read back from a file."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.datatypes import AtomError, Clip
from atom_repro.device.cpu import Cpu
from atom_repro.engines.eager import EagerEngine
from atom_repro.evaluation.captioning import journaled_captions, read_predictions
from atom_repro.models.generation import GenerationSettings
from atom_repro.quant import none
from atom_repro.records.lock import hold
from atom_repro.runtime.runtime import Arm
from atom_repro.runtime.setup import Setup
from atom_repro.video.file import write_video

SETTINGS = {"beams": 2, "max_new_tokens": 5, "length_penalty": 1.0, "forbid_end": False}


@pytest.fixture
def clips(tmp_path):
    made = []
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
        write_video(tmp_path / f"{i}.mp4", pixels, 4)
        made.append(Clip("toy", "test", str(i), tmp_path / f"{i}.mp4"))
    return made


@pytest.fixture
def setup(saved, model):
    return Setup(
        model=model,
        dataset=SimpleNamespace(fingerprint="d"),
        engine=EagerEngine(),
        quantiser=none.build(),
        visual_stages=(),
        device=Cpu(),
        checkpoint=Checkpoint(saved),
        generation=GenerationSettings(**SETTINGS),
        embedder="embedded",
        seed=0,
        random_weights=False,
        components={},
    )


def captions(setup, clips, folder, batch_size=2):
    """The captions, the steps of progress, and the modules that were loaded."""
    steps = []
    arm = Arm(residency="resident", schedule="sequential", threads_alone=1)
    with setup.session(arm) as runtime:
        made = journaled_captions(
            runtime, clips, setup, batch_size=batch_size, folder=folder, progress=steps.append
        )
    loaded = {span.module for span in runtime.timeline.spans() if span.stage == "load"}
    return made, steps, loaded


def test_a_clip_without_a_video_gets_an_empty_caption(setup, clips, tmp_path):
    broken = Clip("toy", "test", "gone", clips[0].path, status="missing")
    made, _, _ = captions(setup, [*clips[:2], broken, *clips[2:]], tmp_path / "a")
    assert [p.video_id for p in made] == ["0", "1", "gone", "2", "3", "4"]
    assert (made[2].caption, made[2].token_ids) == ("", ())
    apart, _, _ = captions(setup, clips, tmp_path / "b", batch_size=1)
    assert [p.token_ids for p in made if p.video_id != "gone"] == [p.token_ids for p in apart]


def test_a_clip_that_should_be_readable_ends_the_evaluation(setup, clips, tmp_path):
    (tmp_path / "broken.mp4").write_text("no video")
    broken = Clip("toy", "test", "broken", tmp_path / "broken.mp4")
    with pytest.raises(AtomError, match=r"broken\.mp4"):
        captions(setup, [*clips[:2], broken], tmp_path / "a")
    (journal,) = (tmp_path / "a").iterdir()
    assert len(journal.read_text().splitlines()) == 2  # what was done is kept


def test_another_setting_of_a_component_is_another_journal(setup, clips, tmp_path):
    stages = {"_target_": "atom_repro.runtime.visual_stages.none.build", "keep": 4}
    for keep in (4, 8):
        other = replace(setup, components={"visual_stages": stages | {"keep": keep}})
        captions(other, clips[:1], tmp_path / "a")
    assert len(list((tmp_path / "a").iterdir())) == 2
    with pytest.raises(AtomError, match="batch_size=0"):
        captions(setup, clips, tmp_path / "a", batch_size=0)


def test_a_resumed_run_repeats_no_whole_batch(setup, clips, tmp_path):
    folder = tmp_path / "journals"
    whole, steps, loaded = captions(setup, clips, folder)
    assert steps == [0, 1, 1, 1, 1, 1]
    assert loaded == {"encoder", "decoder"}
    (journal,) = folder.iterdir()
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + b'{"video')  # killed in the middle of batch 2
    again, steps, _ = captions(setup, clips, folder)
    assert again == whole
    assert steps == [2, 1, 1, 1]
    assert captions(setup, clips, folder) == (whole, [5], set())


def test_two_evaluations_do_not_write_one_journal(setup, clips, tmp_path):
    folder = tmp_path / "journals"
    whole, _, _ = captions(setup, clips, folder)
    (journal,) = folder.iterdir()
    said = rf"another run \(process {os.getpid()}\) uses {journal}; wait for it"
    with hold(journal.with_suffix(".lock"), journal, ""), pytest.raises(AtomError, match=said):
        captions(setup, clips, folder)
    assert captions(setup, clips, folder)[0] == whole


def test_predictions_are_read_back_by_clip(clips, tmp_path):
    path = tmp_path / "p.jsonl"
    lines = [
        json.dumps({"video_id": str(i), "caption": f"clip {i} \u2028 é"}) for i in (4, 3, 2, 1, 0)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert [p.caption[:6] for p in read_predictions(path, clips)] == [f"clip {i}" for i in range(5)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"video_id": "0"}', r"p\.jsonl:1: not a prediction"),
        ("{", r"p\.jsonl:1: not a prediction"),
        ("[1]", r"p\.jsonl:1: not a prediction"),
        ('{"video_id": "0", "caption": null}', r"p\.jsonl:1: not a prediction"),
        ('{"video_id": "0", "caption": "a", "log_prob": "x"}', r"p\.jsonl:1: not a prediction"),
        ('{"video_id": "0", "caption": "x"}', "lacks 4 clips of the protocol, first 1"),
    ],
)
def test_a_bad_file_is_named(clips, tmp_path, text, said):
    path = tmp_path / "p.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(AtomError, match=said):
        read_predictions(path, clips)
