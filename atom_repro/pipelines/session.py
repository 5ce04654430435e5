"""Sessions: a sequence of prompts that one pipeline answers over the same clips.

In a `fresh` session every prompt processes the videos again, as in the paper's end-to-end figures;
in an `indexed` one captions and their embeddings are computed once, and a prompt only embeds,
ranks and generates.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atom_repro.datatypes import AtomError, Clip, Failure, Prediction
from atom_repro.hosts.host import Trace
from atom_repro.hosts.runner import RunnerAnswer, RunnerPipeline
from atom_repro.pipelines.captioned_clips import CaptionedClips, Task, caption_and_embed
from atom_repro.runtime.runtime import Runtime
from atom_repro.runtime.timeline import waterfall


@dataclass(frozen=True)
class PromptResult:
    """Result of one prompt: the captions it used, the ids of its hits by descending similarity, its
    start and end on the session's clock, the clips without a caption, and the decoder's texts
    (none in a search)."""

    prompt: str
    predictions: tuple[Prediction, ...]
    ranking: tuple[str, ...]
    start_s: float
    end_s: float
    failures: tuple[Failure, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Session:
    """A pipeline's task, session kind (`fresh` or `indexed`) and prompts."""

    task: Task
    session: str
    prompts: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.task.name

    def for_runner(self) -> RunnerPipeline:
        """The same for the C++ runner.

        Raises:
            AtomError: the runner does not know the task.
        """
        of_task = getattr(self.task, "for_runner", None)
        if of_task is None:
            raise AtomError(
                f"the runner does not know pipeline={self.name}; choose retrieval or assembly"
            )
        pipeline: RunnerPipeline = of_task(self.session, self.prompts)
        return pipeline

    def from_runner(self, answers: Sequence[RunnerAnswer]) -> list[PromptResult]:
        """Its results, of what the runner answered."""
        return [
            PromptResult(
                prompt,
                tuple(
                    Prediction(clip, one.text, one.token_ids, one.log_prob)
                    for clip, one in answer.captions.items()
                ),
                answer.ranking,
                answer.start_s,
                answer.end_s,
                texts=answer.texts,
            )
            for prompt, answer in zip(self.prompts, answers, strict=True)
        ]

    def run(self, runtime: Runtime, clips: Sequence[Clip]) -> list[PromptResult]:
        """Answer every prompt over the same clips."""
        answers: list[PromptResult] = []
        captioned: CaptionedClips | None = None
        for number, prompt in enumerate(self.prompts):
            start_s = runtime.timeline.now()
            if captioned is None or self.session == "fresh":
                captioned = caption_and_embed(runtime, clips, f"index {number}")
            reply = self.task.respond(runtime, captioned, prompt, f"prompt {number}")
            runtime.end_stage()
            answers.append(
                PromptResult(
                    prompt,
                    captioned.predictions,
                    tuple(hit.clip.video_id for hit in reply.hits),
                    start_s,
                    runtime.timeline.now(),
                    captioned.failures,
                    reply.texts,
                )
            )
        return answers


def trace_samples(
    trace: Trace[PromptResult], round_: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Samples of a record from one session: its prompts, each with its waterfall, the first with
    what else was measured of the session; and its spans.

    Args:
        round_: what tells the session apart from others of the record.
    """
    for number, answer in enumerate(trace.results):
        seconds = waterfall(trace.spans, answer.start_s, answer.end_s).to_dict()
        yield {
            "kind": "prompt", **round_, "prompt": number, **seconds,
            "session_device_peak_bytes": trace.device_peak_bytes,
            "session_memory_peak_bytes": trace.memory_peak_bytes,
            **({"session_measured": dict(trace.measured)} if trace.measured and not number else {}),
        }  # fmt: skip
    for span in trace.spans:
        yield {"kind": "span", **round_, **span.to_dict()}


class OutputCheck:
    """Check that all arms of a comparison give the same tokens, rankings and texts."""

    def __init__(self) -> None:
        self.name, self.answers = "", list[PromptResult]()

    def add(self, name: str, answers: Sequence[PromptResult]) -> None:
        """Compare the answers of one session with those of the first.

        Raises:
            RuntimeError: they differ.
        """
        if not self.answers:
            self.name, self.answers = name, list(answers)
        if list(map(_outputs, answers)) != list(map(_outputs, self.answers)):
            raise RuntimeError(
                f"outputs differ: {name} against {self.name} (tokens, rankings or texts)"
            )

    def captions(self) -> list[tuple[str, tuple[int, ...]]]:
        """Clip and tokens of each caption of each prompt, in order."""
        predictions = [p for answer in self.answers for p in answer.predictions]
        return [(p.video_id, p.token_ids) for p in predictions]


def _outputs(answer: PromptResult) -> tuple[Any, ...]:
    return [p.token_ids for p in answer.predictions], answer.ranking, answer.texts


def session_of(task: Task, *, session: str, prompts: Sequence[str]) -> Session:
    """Validate a `conf/pipeline` file's session and prompts, and build the session.

    Args:
        session: `fresh` or `indexed`.
        prompts: answered one after the other; at least one, none empty.

    Raises:
        AtomError: an unknown kind of session, no prompt, or an empty one.
    """
    if session not in ("fresh", "indexed"):
        raise AtomError(f"pipeline.session={session!r} is neither fresh nor indexed")
    if not prompts or not all(p.strip() for p in prompts):
        raise AtomError("pipeline.prompts needs at least one prompt, and none that is empty")
    return Session(task, session, tuple(prompts))


def checked_similarity(key: str, value: float) -> float:
    """Return a cosine similarity of a `conf/pipeline` file after a range check.

    Raises:
        AtomError: outside -1 to 1.
    """
    if not -1.0 <= value <= 1.0:
        raise AtomError(f"{key}={value}: a cosine similarity lies between -1 and 1")
    return value


def checked_count(key: str, value: int) -> int:
    """Return a count of a `conf/pipeline` file after a range check.

    Raises:
        AtomError: below 1.
    """
    if value < 1:
        raise AtomError(f"{key}={value}: must be at least 1")
    return value
