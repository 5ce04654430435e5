"""Batched captioning of clips for evaluation: decode, encode, generate (paper A.1, step 2).

For caption quality, not for timing: the timed pipelines, which overlap encoder and decoder, use
`runtime`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from atom_repro.datatypes import AtomError, Clip, Prediction
from atom_repro.engines.engine import Decoder, Encoder
from atom_repro.models.generation import GenerationSettings
from atom_repro.records.journal import Journal
from atom_repro.records.record import stage_key
from atom_repro.runtime.setup import Setup
from atom_repro.video.sampling import clip_frames


def caption_clips(
    encoder: Encoder,
    decoder: Decoder,
    clips: Sequence[Clip],
    *,
    prompt: str,
    settings: GenerationSettings,
    batch_size: int,
) -> Iterator[list[Prediction]]:
    """Caption clips batch by batch, in order.

    A clip whose status is missing or corrupt gets an empty caption, which the metrics count as a
    failure of the pipeline.
    """
    config = encoder.model.encoder
    for first in range(0, len(clips), batch_size):
        batch = clips[first : first + batch_size]
        decodable = [c for c in batch if c.status in ("ok", "partial")]
        predictions: dict[str, Prediction] = {}
        if decodable:
            frames = np.stack(
                [clip_frames(c, frames=config.frames, size=config.image_size) for c in decodable]
            )
            generated = decoder(encoder(torch.from_numpy(frames)), prompt, settings)
            for clip, hypothesis in zip(decodable, generated, strict=True):
                predictions[clip.video_id] = Prediction(
                    clip.video_id,
                    decoder.text(hypothesis),
                    hypothesis.token_ids,
                    hypothesis.log_prob,
                )
        yield [predictions.get(c.video_id, Prediction(c.video_id, "", (), 0.0)) for c in batch]


def journaled_captions(
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

    Args:
        setup: with its modules written.
        progress: called with the number of clips done since the last call.
    """
    model, checkpoint, quantiser = setup.model, setup.checkpoint, setup.quantiser
    inputs = {
        **setup.inputs,
        "precision": quantiser.recipe,
        "engine": setup.engine.name,
        "prompt": model.prompt,
        "clips": str([(c.video_id, c.start_s, c.end_s, c.status) for c in clips]),
        "batch_size": str(batch_size),
    }
    generation = {"generation": asdict(setup.generation)}
    key = stage_key("captions", Path(__file__), generation, inputs)
    with Journal(folder / f"{key[:24]}.jsonl") as journal:
        predictions = {
            line["video_id"]: Prediction(
                line["video_id"], line["caption"], tuple(line["token_ids"]), line["log_prob"]
            )
            for line in journal.done
        }
        # Whole batches only: int8 activations make a caption depend on its batch in the last
        # digits, so a resumed run must have the batches of an uninterrupted one.
        complete = len(predictions) == len(clips)
        done = len(clips) if complete else len(predictions) // batch_size * batch_size
        progress(done)
        remaining = clips[done:]
        if not complete:
            engine, device = setup.engine, setup.device.torch
            encoder = engine.load_encoder(checkpoint.encoder(quantiser), model, quantiser, device)
            decoder = engine.load_decoder(checkpoint.decoder(quantiser), model, quantiser, device)
            for batch in caption_clips(
                encoder,
                decoder,
                remaining,
                prompt=model.prompt,
                settings=setup.generation,
                batch_size=batch_size,
            ):
                for prediction in batch:
                    if prediction.video_id not in predictions:
                        journal.add(asdict(prediction))
                        predictions[prediction.video_id] = prediction
                progress(len(batch))
    return [predictions[clip.video_id] for clip in clips]


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
        AtomError: a malformed line, with its number, or a clip missing from the file.
    """
    predictions: dict[str, Prediction] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            ids, log_prob = tuple(row.get("token_ids", ())), float(row.get("log_prob", 0.0))
            predictions[row["video_id"]] = Prediction(
                row["video_id"], row["caption"], ids, log_prob
            )
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise AtomError(
                f'{path}:{number}: not a prediction; a line is {{"video_id": …, "caption": …}}'
            ) from error
    missing = [c.video_id for c in clips if c.video_id not in predictions]
    if missing:
        raise AtomError(f"{path} lacks {len(missing)} clips of the protocol, first {missing[0]}")
    return [predictions[c.video_id] for c in clips]
