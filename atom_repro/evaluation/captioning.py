"""Captions of clips in batches: decode, encode, generate (paper A.1, step 2).

For evaluation, where quality counts and every clip is at hand. The pipelines that are timed, and
overlap encoder and decoder, go through `runtime`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from atom_repro.datatypes import AtomError, Clip, Prediction
from atom_repro.engines.eager import DecoderModule, EncoderModule, load_decoder, load_encoder
from atom_repro.models.generation import GenerationSettings
from atom_repro.records.journal import Journal
from atom_repro.records.record import stage_key
from atom_repro.runtime.setup import Setup
from atom_repro.video.sampling import clip_frames


def caption_clips(
    encoder: EncoderModule,
    decoder: DecoderModule,
    clips: Sequence[Clip],
    *,
    prompt: str,
    settings: GenerationSettings,
    batch_size: int,
) -> Iterator[list[Prediction]]:
    """Caption clips batch by batch, in order.

    A clip whose status is missing or corrupt gets an empty caption: it counts as a failure of
    the pipeline, which the metrics see.
    """
    numbers = encoder.model.encoder
    for first in range(0, len(clips), batch_size):
        batch = clips[first : first + batch_size]
        whole = [c for c in batch if c.status in ("ok", "partial")]
        said: dict[str, Prediction] = {}
        if whole:
            frames = np.stack(
                [clip_frames(c, frames=numbers.frames, size=numbers.image_size) for c in whole]
            )
            generated = decoder(encoder(torch.from_numpy(frames)), prompt, settings)
            for clip, best in zip(whole, generated, strict=True):
                said[clip.video_id] = Prediction(
                    clip.video_id, decoder.text(best), best.token_ids, best.log_prob
                )
        yield [said.get(c.video_id, Prediction(c.video_id, "", (), 0.0)) for c in batch]


def kept_captions(
    clips: Sequence[Clip],
    setup: Setup,
    *,
    batch_size: int,
    folder: Path,
    progress: Callable[[int], object],
) -> list[Prediction]:
    """Captions of clips, from a journal as far as one exists, made and kept from there on.

    The journal is named by everything that the captions depend on: weights, precision, device,
    settings, data and code. A killed evaluation goes on in it, and a second metric reads it.

    Args:
        setup: whose modules are there.
        progress: told how many clips were done since it was last told.
    """
    model, checkpoint, precision = setup.model, setup.checkpoint, setup.quantiser.name
    depends = {
        **setup.inputs,
        "precision": precision,
        "prompt": model.prompt,
        "clips": str([(c.video_id, c.start_s, c.end_s, c.status) for c in clips]),
        "batch_size": str(batch_size),
    }
    generation = {"generation": asdict(setup.generation)}
    key = stage_key("captions", Path(__file__), generation, depends)
    with Journal(folder / f"{key[:24]}.jsonl") as journal:
        said = {
            line["video_id"]: Prediction(
                line["video_id"], line["caption"], tuple(line["token_ids"]), line["log_prob"]
            )
            for line in journal.done
        }
        # Whole batches only: int8 activations make a caption depend on its batch in the last
        # digits, so a resumed run must meet the batches of an uninterrupted one.
        complete = len(said) == len(clips)
        done = len(clips) if complete else len(said) // batch_size * batch_size
        progress(done)
        left = clips[done:]
        if not complete:
            device = setup.device.torch
            encoder = load_encoder(checkpoint.encoder(precision), model, device)
            decoder = load_decoder(checkpoint.decoder(precision), model, device)
            for batch in caption_clips(
                encoder,
                decoder,
                left,
                prompt=model.prompt,
                settings=setup.generation,
                batch_size=batch_size,
            ):
                for prediction in batch:
                    if prediction.video_id not in said:
                        journal.add(asdict(prediction))
                        said[prediction.video_id] = prediction
                progress(len(batch))
    return [said[clip.video_id] for clip in clips]


def existing_file(name: str) -> Path:
    """The predictions file that `from_predictions` names.

    Raises:
        AtomError: there is none.
    """
    path = Path(name)
    if not path.is_file():
        raise AtomError(f"from_predictions={name}: no such file; give a samples.jsonl")
    return path


def read_predictions(path: Path, clips: Sequence[Clip]) -> list[Prediction]:
    """Captions of clips from a file, a JSON object with video_id and caption a line.

    Raises:
        AtomError: a line that is none, with its number, or a clip that the file lacks.
    """
    found: dict[str, Prediction] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            ids, log_prob = tuple(row.get("token_ids", ())), float(row.get("log_prob", 0.0))
            found[row["video_id"]] = Prediction(row["video_id"], row["caption"], ids, log_prob)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise AtomError(
                f'{path}:{number}: not a prediction; a line is {{"video_id": …, "caption": …}}'
            ) from error
    lacking = [c.video_id for c in clips if c.video_id not in found]
    if lacking:
        raise AtomError(f"{path} lacks {len(lacking)} clips of the protocol, first {lacking[0]}")
    return [found[c.video_id] for c in clips]
