"""Captions of clips: batched equals single, kept for the next run, read back from a file."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.datatypes import AtomError, Clip
from atom_repro.device.cpu import Cpu
from atom_repro.engines.eager import EagerEngine
from atom_repro.evaluation.captioning import caption_clips, journaled_captions, read_predictions
from atom_repro.models.generation import GenerationSettings
from atom_repro.quant import none
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


def captions(saved, model, clips, batch_size):
    batches = caption_clips(
        EagerEngine().load_encoder(saved / "fp32/encoder", model),
        EagerEngine().load_decoder(saved / "fp32/decoder", model),
        clips,
        prompt="",
        settings=GenerationSettings(**SETTINGS),
        batch_size=batch_size,
    )
    return [p for batch in batches for p in batch]


def test_a_clip_without_a_video_gets_an_empty_caption(saved, model, clips):
    broken = Clip("toy", "test", "gone", clips[0].path, status="missing")
    made = captions(saved, model, [*clips[:2], broken, *clips[2:]], batch_size=2)
    assert [p.video_id for p in made] == ["0", "1", "gone", "2", "3", "4"]
    assert (made[2].caption, made[2].token_ids) == ("", ())
    apart = captions(saved, model, clips, batch_size=1)
    assert [p.token_ids for p in made if p.video_id != "gone"] == [p.token_ids for p in apart]


def test_a_resumed_run_repeats_no_whole_batch(saved, clips, model, tmp_path):
    setup = Setup(
        model=model,
        dataset=SimpleNamespace(fingerprint="d"),
        engine=EagerEngine(),
        quantiser=none.build(),
        device=Cpu(),
        checkpoint=Checkpoint(saved),
        generation=GenerationSettings(**SETTINGS),
        embedder="embedded",
        seed=0,
        random_weights=False,
    )

    def run(clips):
        steps = []
        made = journaled_captions(
            clips,
            setup,
            batch_size=2,
            folder=tmp_path / "journals",
            progress=steps.append,
        )
        return made, steps

    whole, steps = run(clips)
    assert steps == [0, 2, 2, 1]
    (journal,) = (tmp_path / "journals").iterdir()
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + b'{"video')  # killed in the middle of batch 2
    again, steps = run(clips)
    assert again == whole
    assert steps == [2, 2, 1]
    assert run(clips)[1] == [5]


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
        ('{"video_id": "0", "caption": "x"}', "lacks 4 clips of the protocol, first 1"),
    ],
)
def test_a_bad_file_is_named(clips, tmp_path, text, said):
    path = tmp_path / "p.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(AtomError, match=said):
        read_predictions(path, clips)
