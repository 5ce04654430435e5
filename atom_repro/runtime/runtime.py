"""The runtime: a session of modules under a residency and a schedule, with a timeline of spans.

Every arm of a comparison, Atom's and the baselines', is this class with other arguments; pipelines
are written against it once.
"""

import weakref
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

from atom_repro.datatypes import AtomError, Clip, Failure, Prediction
from atom_repro.device.compute import ComputeDevice
from atom_repro.engines.engine import Decoder, Embedder, Encoder
from atom_repro.models.generation import GenerationSettings
from atom_repro.records.record import out_of_memory, status_of
from atom_repro.runtime import schedule as schedules
from atom_repro.runtime.residency import RESIDENCIES, ModuleLoader, ModuleStore
from atom_repro.runtime.timeline import Timeline
from atom_repro.video.sampling import clip_frames


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Runtime configuration to compare. Threads are torch's for one module: while the other waits
    (`threads_alone`), and while both work (`threads_beside`)."""

    residency: str
    schedule: str
    queue: int = 2
    threads_alone: int = 2
    threads_beside: int = 1

    def __post_init__(self) -> None:
        for key, value, known in (
            ("residency", self.residency, RESIDENCIES),
            ("schedule", self.schedule, schedules.SCHEDULES),
        ):
            if value not in known:
                raise AtomError(f"{key} {value!r} is none of {', '.join(known)}")

    @property
    def name(self) -> str:
        return f"{self.residency}/{self.schedule}"


CaptionOutcome = Prediction | Failure


class Runtime:
    """One session. Use as a context manager: leaving it stops running stages and releases the
    modules, and sets `status` (ok, oom, interrupted, failed)."""

    def __init__(
        self,
        arm: Arm,
        loaders: dict[str, ModuleLoader],
        device: ComputeDevice,
        *,
        prompt: str,
        settings: GenerationSettings,
    ) -> None:
        self.arm, self.prompt, self.settings = arm, prompt, settings
        self.status = "running"
        self.device = device
        self.timeline = Timeline()
        self.store = ModuleStore(arm.residency, loaders, self.timeline, device)
        self._captioning: weakref.WeakSet[Generator[CaptionOutcome, None, None]] = weakref.WeakSet()

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.status = status_of(error)
        for generator in list(self._captioning):  # abandoned, but still held by the caller
            generator.close()
        self.store.close()
        torch.set_num_threads(self.arm.threads_alone)

    def caption(self, clips: Sequence[Clip]) -> Generator[CaptionOutcome, None, None]:
        """Caption clips with encoder and decoder, in order, under the schedule.

        Yields one outcome for each clip as soon as it is done, so that a caller can save it: a
        `Prediction`, or a `Failure` where the clip cannot be read; the other clips go on.

        Raises:
            MemoryError: a module ran out of memory, after the outcomes of the clips before.
        """
        stage = self._captions(clips)
        self._captioning.add(stage)
        return stage

    def _captions(self, clips: Sequence[Clip]) -> Generator[CaptionOutcome, None, None]:
        threads = (
            self.arm.threads_beside if self.arm.schedule == "parallel" else self.arm.threads_alone
        )

        def encode(clip: Clip) -> Tensor | Failure:
            torch.set_num_threads(threads)  # torch keeps this count for each thread apart
            return self.store.call(
                "encoder", clip.video_id, lambda encoder: self._encode(encoder, clip)
            )

        def decode(clip: Clip, visual: Tensor | Failure) -> CaptionOutcome:
            if isinstance(visual, Failure):
                return visual
            torch.set_num_threads(threads)
            return self.store.call(
                "caption_decoder",
                clip.video_id,
                lambda decoder: self._caption(decoder, clip, visual),
            )

        try:
            yield from schedules.run(
                self.arm.schedule, clips, encode, decode, queue_size=self.arm.queue
            )
        finally:
            torch.set_num_threads(self.arm.threads_alone)
            self.store.end_stage()

    def write(self, prompt: str, settings: GenerationSettings, *, stage: str, item: str) -> str:
        """Generate text from a prompt without video; `stage` names the span."""

        def work(decoder: Decoder) -> str:
            with self._computing(stage, "decoder", item):
                return decoder.text(decoder(None, prompt, settings)[0])

        return self.store.call("script_decoder", item, work)

    def ask(self, clip: Clip, prompt: str, settings: GenerationSettings) -> str:
        """Generate the answer to a prompt that follows a clip's visual tokens.

        Raises:
            AtomError: the clip cannot be read.
        """
        visual = self.store.call(
            "encoder", clip.video_id, lambda encoder: self._encode(encoder, clip)
        )
        if isinstance(visual, Failure):
            raise AtomError(visual.detail)

        def work(decoder: Decoder) -> str:
            with self._computing("answer", "decoder", clip.video_id):
                return decoder.text(decoder(visual, prompt, settings)[0])

        return self.store.call("script_decoder", clip.video_id, work)

    def embed(self, texts: Sequence[str], item: str) -> Tensor:
        """Embed texts as unit vectors (len(texts), 384)."""

        def work(embedder: Embedder) -> Tensor:
            with self._computing("embed", "embedder", item):
                return embedder(texts)

        return self.store.call("embedder", item, work)

    @contextmanager
    def _computing(self, stage: str, module: str, item: str) -> Iterator[None]:
        """Record a span in this thread's lane, which ends when the device has finished."""
        with self.timeline.span(stage, module, item), self.device.stream():
            yield
            self.device.synchronize()

    def _encode(self, encoder: Encoder, clip: Clip) -> Tensor | Failure:
        encoder_config = encoder.model.encoder
        with self.timeline.span("decode_video", "reader", clip.video_id):
            try:
                frames = clip_frames(
                    clip, frames=encoder_config.frames, size=encoder_config.image_size
                )
            except Exception as error:
                # A damaged file can break a demuxer in any way. Errors of the encoder or the
                # decoder are not caused by a clip, and end the stage.
                if out_of_memory(error):
                    raise
                message = str(error) if isinstance(error, AtomError) else f"{clip.path}: {error!r}"
                return Failure(clip.video_id, "decode_video", " ".join(message.split()))
        with self._computing("encode", "encoder", clip.video_id):
            return encoder(torch.from_numpy(frames[None]))

    def _caption(self, decoder: Decoder, clip: Clip, visual: Tensor) -> Prediction:
        with self._computing("caption", "decoder", clip.video_id):
            best = decoder(visual, self.prompt, self.settings)[0]
        return Prediction(clip.video_id, decoder.text(best), best.token_ids, best.log_prob)

    def end_stage(self) -> None:
        """End a stage, where a pipeline's stage is more than one call."""
        self.store.end_stage()
