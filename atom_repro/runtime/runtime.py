"""The runtime: a session of modules under a residency and a schedule, with a timeline of spans.

Every arm of a comparison, Atom's and the baselines', is this class with other arguments; pipelines
are written against it once.
"""

import math
import weakref
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from atom_repro.datatypes import AtomError, Clip
from atom_repro.device.compute import ComputeDevice
from atom_repro.engines.engine import Batch, Decoder
from atom_repro.models.generation import Generated, GenerationSettings
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.records.record import status_of
from atom_repro.runtime import schedule as schedules
from atom_repro.runtime import thread_split
from atom_repro.runtime.captioning import (
    CaptionOutcome,
    ClipBatch,
    ReadFrames,
    batch_name,
    read_clips,
)
from atom_repro.runtime.encode_once import EncodeOnce
from atom_repro.runtime.residency import (
    CAPTION_DECODER,
    EMBEDDER,
    ENCODER,
    RESIDENCIES,
    SCRIPT_DECODER,
    ModuleLoader,
    ModuleStore,
    Role,
)
from atom_repro.runtime.thread_split import ThreadSplit
from atom_repro.runtime.timeline import SpanCounts, Timeline
from atom_repro.runtime.visual_stages.visual_stage import VisualStage
from atom_repro.video.sampling import clip_frames
from atom_repro.video.shared_decoding import SharedDecoding

Result = TypeVar("Result")
_ENCODER_LANE, _DECODER_LANE = "encoder", "decoder"
_STEPS_BETWEEN_LOOKS = 4  # decoding steps before another clip may join


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Runtime configuration to compare.

    Attributes:
        threads: `fixed`, or `calibrate` to choose those of both modules side by side from their
            times (see `thread_split`); a setup's session does.
        threads_alone, threads_beside: torch's for one module, while the other waits and while both
            work.
        split: of encoder and decoder while both work, in place of `threads_beside` for each.
        decode_batch: clips that share decoding steps, joining and leaving as they finish.
        load_ahead: under `parallel`, whether the decoder is loaded while the first clip is encoded.
        decode_once: whether windows of one video that overlap share their decoded frames, for which
            its decoder stays open between them.
        encode_once: whether clips that have a frame in common have it encoded once, for which each
            has to be encoded by itself.

    Neither `decode_batch` nor `load_ahead` has an effect under `reload_input`, which has modules
    for one batch of clips at a time.
    """

    residency: str
    schedule: str
    queue: int = 2
    threads: str = "fixed"
    threads_alone: int = 2
    threads_beside: int = 1
    decode_batch: int = 1
    load_ahead: bool = False
    decode_once: bool = True
    encode_once: bool = False
    split: ThreadSplit | None = None

    def __post_init__(self) -> None:
        for key, value, known in (
            ("residency", self.residency, RESIDENCIES),
            ("schedule", self.schedule, schedules.SCHEDULES),
            ("runtime.threads", self.threads, thread_split.CHOICES),
        ):
            if value not in known:
                raise AtomError(f"{key} {value!r} is none of {', '.join(known)}")
        for key in ("queue", "threads_alone", "threads_beside", "decode_batch"):
            if getattr(self, key) < 1:
                raise AtomError(f"runtime.{key}={getattr(self, key)}: must be at least 1")

    @property
    def name(self) -> str:
        return f"{self.residency}/{self.schedule}"

    @property
    def labels(self) -> dict[str, Any]:
        """What a record says of it, beside its settings."""
        return {"arm": self.name, "decode_batch": self.decode_batch}

    @property
    def calibrates(self) -> bool:
        """Whether its threads are to be chosen from a calibration."""
        return self.threads == "calibrate" and self.schedule == "parallel"

    def lane_threads(self, lane: str) -> int:
        """Threads of the stage that works in a lane."""
        if self.schedule != "parallel":
            return self.threads_alone
        if self.split is None:
            return self.threads_beside
        return self.split.decoder if lane == _DECODER_LANE else self.split.encoder


class Runtime:
    """One session. Use as a context manager: leaving it stops running stages and releases the
    modules, and sets `status` (ok, oom, interrupted, failed).

    Args:
        loaders: of encoder, decoder and embedder, and of every other module that a role names.
        settings: of a caption's generation; its prompt is the model's.
        visual_stages: between encoder and decoder, in order.
    """

    def __init__(
        self,
        arm: Arm,
        loaders: Mapping[str, ModuleLoader],
        device: ComputeDevice,
        *,
        model: VideoLanguageModel,
        settings: GenerationSettings,
        visual_stages: Sequence[VisualStage] = (),
    ) -> None:
        names = [_ENCODER_LANE, *(stage.name for stage in visual_stages), _DECODER_LANE]
        if len(set(names)) < len(names):
            raise AtomError(
                f"visual_stages are named {', '.join(names[1:-1])}: each needs a name of its own, "
                f"other than {_ENCODER_LANE} and {_DECODER_LANE}"
            )
        if arm.encode_once and not model.encoder.frames_apart:
            raise AtomError(
                f"runtime.encode_once=true: the encoder of model={model.name} mixes neighbouring "
                "frames in its first layer, so none is encoded by itself; choose "
                "model=smolvlm2_256m, or leave it"
            )
        self.arm, self.model, self.settings = arm, model, settings
        self.visual_stages = visual_stages
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

    def run(
        self,
        role: Role,
        stage: str,
        item: str,
        work: Callable[[Any], Result],
        *,
        tokens: Callable[[Result], int] = lambda _: 0,
    ) -> Result:
        """Return `work(module)` of the module that serves a role, timed as a span.

        Args:
            stage: names the span.
            item: what the work is about, such as a clip's id.
            tokens: how many the result generated.

        Raises:
            MemoryError: too little memory for the module or its work; a one-line message.
        """

        def timed(module: Any) -> Result:
            with self.span(stage, role.module, item) as counts:
                result = work(module)
                counts.tokens = tokens(result)
                return result

        return self.store.call(role, item, timed)

    @contextmanager
    def span(self, stage: str, module: str, item: str) -> Iterator[SpanCounts]:
        """Record a span in this thread's lane, which ends when the device has finished."""
        with self.timeline.span(stage, module, item) as counts, self.device.stream():
            yield counts
            self.device.synchronize()

    def caption(
        self, clips: Sequence[Clip], *, batch_size: int = 1
    ) -> Generator[CaptionOutcome, None, None]:
        """Caption clips with encoder and decoder, in order, under the schedule.

        Yields one outcome for each clip as soon as its batch is done, so that a caller can save it:
        a `Prediction`, or a `Failure` where the clip cannot be read; the other clips go on.

        Args:
            batch_size: clips in one call of a module. int8 activations make a caption depend on its
                batch in the last digits.

        Raises:
            MemoryError: a module ran out of memory, after the outcomes of the clips before.
            ValueError: `batch_size` is below 1.
        """
        starts = range(0, len(clips), batch_size)
        read_frames = SharedDecoding(clips) if self.arm.decode_once else clip_frames
        batches = [clips[i : i + batch_size] for i in starts]
        encode: Callable[[Sequence[Clip]], ClipBatch]
        if self.arm.encode_once:
            read = partial(self._read, read_frames=read_frames)
            encode = EncodeOnce(batches, read, self._run_encoder)
        else:
            encode = partial(self._encode, read_frames=read_frames)
        outcomes = self._caption_batches(batches, encode)
        self._captioning.add(outcomes)
        return outcomes

    def _caption_batches(
        self, batches: Sequence[Sequence[Clip]], encode: Callable[[Sequence[Clip]], ClipBatch]
    ) -> Generator[CaptionOutcome, None, None]:
        stages: dict[str, Callable[[Any], Any]] = {
            _ENCODER_LANE: encode,
            **{s.name: partial(self._change, s, self.model.prompt) for s in self.visual_stages},
        }
        last: Callable[[schedules.Source], Iterator[list[CaptionOutcome]]] | None = None
        if self.arm.residency != "reload_input":
            if self.arm.decode_batch > 1:
                last = self._caption_together
            elif self.arm.load_ahead:
                last = self._caption_each
        if last is None:
            stages[_DECODER_LANE] = self._caption
        lanes = {
            name: partial(_with_threads, self.arm.lane_threads(name), stage)
            for name, stage in stages.items()
        }
        try:
            for outcomes in schedules.run(
                self.arm.schedule,
                batches,
                lanes,
                queue_size=self.arm.queue,
                last=last and partial(self._with_decoder_ahead, last),
            ):
                yield from outcomes
        finally:
            torch.set_num_threads(self.arm.threads_alone)
            self.store.end_stage()

    def _encode(self, clips: Sequence[Clip], read_frames: ReadFrames = clip_frames) -> ClipBatch:
        batch = self._read(clips, read_frames)
        if batch.frames is None:
            return batch
        return replace(batch, frames=None, visual=self._run_encoder(batch.item, batch.frames))

    def _read(self, clips: Sequence[Clip], read_frames: ReadFrames) -> ClipBatch:
        with self.timeline.span("decode_video", "reader", batch_name(clips)):
            return read_clips(clips, self.model.encoder, read_frames)

    def _run_encoder(self, item: str, frames_BTCHW: Tensor) -> VisualTokens:
        return self.run(ENCODER, "encode", item, lambda encoder: encoder(frames_BTCHW))

    def _change(self, stage: VisualStage, prompt: str, batch: ClipBatch) -> ClipBatch:
        if batch.visual is None:
            return batch
        return replace(batch, visual=stage(self, batch, prompt))

    def _caption(self, batch: ClipBatch) -> list[CaptionOutcome]:
        generated: list[Generated] = []
        if batch.visual is not None:
            generated = self._generate(
                CAPTION_DECODER, "caption", batch, self.model.prompt, self.settings
            )
        return batch.outcomes(generated)

    def _with_decoder_ahead(
        self,
        last: Callable[[schedules.Source], Iterator[list[CaptionOutcome]]],
        source: schedules.Source,
    ) -> Iterator[list[CaptionOutcome]]:
        """Run the last stage in this thread, with the decoder loaded before its first clip is there
        if the arm says so."""
        torch.set_num_threads(self.arm.lane_threads(_DECODER_LANE))
        if self.arm.load_ahead and self.arm.schedule == "parallel":
            self.store.call(CAPTION_DECODER, "ahead", lambda _: None)
        return last(source)

    def _caption_each(self, source: schedules.Source) -> Iterator[list[CaptionOutcome]]:
        return map(self._caption, source)

    def _caption_together(self, source: schedules.Source) -> Iterator[list[CaptionOutcome]]:
        """Caption clips in shared decoding steps, and yield their outcomes in order.

        A clip joins as soon as it is encoded and a place is free; its span `caption` is its
        prefill, and those of the shared steps name how many clips took part.
        """
        in_order = InOrder[list[CaptionOutcome]]()
        running: dict[int, ClipBatch] = {}
        batch: Batch | None = None
        ended = False
        while running or not ended:
            while not ended and len(running) < self.arm.decode_batch:
                if running and not source.ready():
                    break
                clips = next(source, None)
                if clips is None:
                    ended = True
                    break
                number = in_order.expect()
                if clips.visual is None:
                    in_order.put(number, clips.outcomes([]))
                    continue
                if batch is None:
                    batch = self.run(CAPTION_DECODER, "caption", clips.item, self._open_batch)
                running[number] = clips
                done = self._decode(clips.item, partial(_add, batch, number, clips))
                self._finish(done, running, in_order)
            if running:
                assert batch is not None
                free = len(running) < self.arm.decode_batch and not ended
                steps = _STEPS_BETWEEN_LOOKS if free else self.settings.max_new_tokens
                done = self._decode(f"{len(running)} clips", partial(_advance, batch, steps))
                self._finish(done, running, in_order)
            yield from in_order.ready()

    def _decode(
        self, item: str, work: Callable[[Decoder], Mapping[int, Generated]]
    ) -> Mapping[int, Generated]:
        return self._run_decoder(CAPTION_DECODER, "caption", item, work, lambda d: d.values())

    def _open_batch(self, decoder: Decoder) -> Batch:
        return decoder.batch(self.model.prompt, self.settings)

    def _finish(
        self,
        done: Mapping[int, Generated],
        running: dict[int, ClipBatch],
        in_order: "InOrder[list[CaptionOutcome]]",
    ) -> None:
        for number, generated in done.items():
            in_order.put(number, running.pop(number).outcomes([generated]))

    def _generate(
        self, role: Role, stage: str, batch: ClipBatch, prompt: str, settings: GenerationSettings
    ) -> list[Generated]:
        def work(decoder: Decoder) -> list[Generated]:
            return decoder.generate(batch.visual, prompt, settings)

        return self._run_decoder(role, stage, batch.item, work, lambda texts: texts)

    def write(
        self, prompt: str, settings: GenerationSettings, *, stage: str, item: str
    ) -> Generated:
        """Generate text from a prompt without video; `stage` names the span."""

        def work(decoder: Decoder) -> Generated:
            return decoder.generate(None, prompt, settings)[0]

        return self._run_decoder(SCRIPT_DECODER, stage, item, work, lambda text: (text,))

    def _run_decoder(
        self,
        role: Role,
        stage: str,
        item: str,
        work: Callable[[Decoder], Result],
        texts: Callable[[Result], Collection[Generated]],
    ) -> Result:
        """`run` of work that generates `texts`.

        Raises:
            AtomError: a probability is not finite, as with weights of a training that diverged.
        """
        result = self.run(
            role, stage, item, work, tokens=lambda made: sum(len(t.token_ids) for t in texts(made))
        )
        if not all(math.isfinite(text.log_prob) for text in texts(result)):
            raise AtomError(
                f"{item}: the decoder's probabilities are not finite; weights in "
                f"{self.store.loaders[role.module].folder} are damaged, train or convert them anew"
            )
        return result

    def ask(self, clip: Clip, prompt: str, settings: GenerationSettings) -> Generated:
        """Generate the answer to a prompt that follows a clip's visual tokens.

        Raises:
            AtomError: the clip cannot be read.
        """
        batch = self._encode([clip])
        if batch.failures:
            raise AtomError(batch.failures[clip.video_id].detail)
        for stage in self.visual_stages:
            batch = self._change(stage, prompt, batch)
        return self._generate(SCRIPT_DECODER, "answer", batch, prompt, settings)[0]

    def embed(self, texts: Sequence[str], item: str) -> Tensor:
        """Embed texts as unit vectors (len(texts), 384)."""
        return self.run(EMBEDDER, "embed", item, lambda embedder: embedder(texts))

    def end_stage(self) -> None:
        """End a stage, where a pipeline's stage is more than one call."""
        self.store.end_stage()


class InOrder(Generic[Result]):
    """Results that become ready in any order, given out in that in which they were expected."""

    def __init__(self) -> None:
        self._expected = 0
        self._next = 0
        self._waiting: dict[int, Result] = {}

    def expect(self) -> int:
        """The number of one more result."""
        self._expected += 1
        return self._expected - 1

    def put(self, number: int, result: Result) -> None:
        self._waiting[number] = result

    def ready(self) -> Iterator[Result]:
        """Remove and yield the results whose turn it is."""
        while self._next in self._waiting:
            yield self._waiting.pop(self._next)
            self._next += 1


def _add(batch: Batch, number: int, clips: ClipBatch, decoder: Decoder) -> Mapping[int, Generated]:
    assert clips.visual is not None
    return batch.add(number, clips.visual)


def _advance(batch: Batch, steps: int, decoder: Decoder) -> Mapping[int, Generated]:
    return batch.advance(steps)


def _with_threads(threads: int, stage: Callable[[Any], Any], value: Any) -> Any:
    torch.set_num_threads(threads)  # torch keeps this count for each thread apart
    return stage(value)
