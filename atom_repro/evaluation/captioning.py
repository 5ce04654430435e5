"""Captions for evaluation: generated in batches and kept in a journal, or read from a file."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from atom_repro.data.annotations import read_lines
from atom_repro.datatypes import AtomError, Clip, Failure, Prediction
from atom_repro.records.journal import Journal
from atom_repro.records.lock import hold
from atom_repro.records.record import stage_key
from atom_repro.runtime.captioning import CaptionOutcome
from atom_repro.runtime.runtime import Runtime
from atom_repro.runtime.setup import Setup


def journaled_captions(
    runtime: Runtime,
    clips: Sequence[Clip],
    setup: Setup,
    *,
    batch_size: int,
    folder: Path,
    progress: Callable[[int], object],
) -> list[Prediction]:
    """Caption clips through a journal: read the captions that it has, generate and append the rest.

    The journal's name is a hash of everything that the captions depend on: weights, precision,
    device, settings, data and code. A killed evaluation resumes from it, and another evaluation
    of the same captions reads it.

    A clip whose status is missing or corrupt gets an empty caption, which the metrics count as a
    failure of the pipeline.

    Args:
        runtime: a session of `setup`, which loads modules only if a caption is missing.
        progress: called with the number of clips done since the last call.

    Raises:
        AtomError: another run writes these captions, or a clip that should be readable is not.
    """
    inputs = {
        **setup.inputs,
        **{name: str(label) for name, label in setup.labels.items()},
        "prompt": setup.model.prompt,
        "clips": str([(c.video_id, c.start_s, c.end_s, c.status) for c in clips]),
        "batch_size": str(batch_size),
    }
    if batch_size < 1:
        raise AtomError(f"batch_size={batch_size}: must be at least 1")
    settings = {"generation": asdict(setup.generation), **setup.components}
    key = stage_key("captions", Path(__file__), settings, inputs)
    path = folder / f"{key[:24]}.jsonl"
    with hold(path.with_suffix(".lock"), path, "set another paths.work"), Journal(path) as journal:
        predictions = {
            line["video_id"]: Prediction(**{**line, "token_ids": tuple(line["token_ids"])})
            for line in journal.done
        }
        # Whole batches only: int8 activations make a caption depend on its batch in the last
        # digits, so a resumed run must have the batches of an uninterrupted one.
        complete = len(predictions) == len(clips)
        done = len(clips) if complete else len(predictions) // batch_size * batch_size
        progress(done)
        remaining = clips[done:]
        for clip, outcome in zip(
            remaining, runtime.caption(remaining, batch_size=batch_size), strict=True
        ):
            if clip.video_id not in predictions:
                predictions[clip.video_id] = scored_prediction(clip, outcome)
                journal.add(asdict(predictions[clip.video_id]))
            progress(1)
    return [predictions[clip.video_id] for clip in clips]


def scored_prediction(clip: Clip, outcome: CaptionOutcome) -> Prediction:
    """The caption that is scored for a clip: empty where it was known that it cannot be read.

    Raises:
        AtomError: another clip cannot be read; to go on would count it as a bad caption.
    """
    if isinstance(outcome, Failure):
        if clip.status in ("ok", "partial"):
            raise AtomError(outcome.detail)
        return Prediction(clip.video_id, "", (), 0.0)
    return outcome


def existing_file(name: str) -> Path:
    """Return the path of `from_predictions`, a predictions file.

    Raises:
        AtomError: no such file.
    """
    path = Path(name)
    if not path.is_file():
        raise AtomError(f"from_predictions={name}: no such file; give a samples.jsonl")
    return path


def read_predictions(path: Path, clips: Sequence[Clip]) -> list[Prediction]:
    """Read captions of clips from a JSON Lines file with `video_id` and `caption`.

    Raises:
        AtomError: not UTF-8, a malformed line, with its number, or a clip missing from the file.
    """
    predictions: dict[str, Prediction] = {}
    for where, line in read_lines(path):
        try:
            row = json.loads(line)
            if not isinstance(row["caption"], str):
                raise TypeError("a caption is a text")
            ids, log_prob = tuple(row.get("token_ids", ())), float(row.get("log_prob", 0.0))
            predictions[row["video_id"]] = Prediction(
                row["video_id"], row["caption"], ids, log_prob
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AtomError(
                f'{where}: not a prediction; a line is {{"video_id": …, "caption": …}}'
            ) from error
    missing = [c.video_id for c in clips if c.video_id not in predictions]
    if missing:
        raise AtomError(f"{path} lacks {len(missing)} clips of the protocol, first {missing[0]}")
    return [predictions[c.video_id] for c in clips]
