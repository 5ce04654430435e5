"""A session of one pipeline: prompts asked of the same clips, one after the other.

In a `fresh` session every prompt processes the videos again, as in the paper's end-to-end figures;
in an `indexed` one captions and their vectors are made once, and a prompt only embeds, ranks and
writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atom_repro.datatypes import AtomError, Clip, Failure, Prediction
from atom_repro.pipelines.captioned_clips import Footage, Task, watch
from atom_repro.runtime.runtime import Runtime


@dataclass(frozen=True)
class Answer:
    """What one prompt got: the captions it worked on, the clips that were found by falling
    similarity, the clips that have no caption, what was written for it (nothing, in a search), and
    when it began and ended on the session's clock."""

    prompt: str
    predictions: tuple[Prediction, ...]
    ranking: tuple[str, ...]
    start_s: float
    end_s: float
    failures: tuple[Failure, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Session:
    """A pipeline's settings; `run` is one session of it."""

    task: Task
    session: str
    prompts: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.task.name

    def run(self, runtime: Runtime, clips: Sequence[Clip]) -> list[Answer]:
        """Ask every prompt, over the same clips."""
        answers: list[Answer] = []
        footage: Footage | None = None
        for number, prompt in enumerate(self.prompts):
            start_s = runtime.timeline.now()
            if footage is None or self.session == "fresh":
                footage = watch(runtime, clips, f"index {number}")
            reply = self.task.respond(runtime, footage, prompt, f"prompt {number}")
            runtime.end_stage()
            answers.append(
                Answer(
                    prompt,
                    footage.predictions,
                    tuple(hit.clip.video_id for hit in reply.hits),
                    start_s,
                    runtime.timeline.now(),
                    footage.failures,
                    reply.texts,
                )
            )
        return answers


class OutputCheck:
    """All arms of a comparison must give the same tokens, rankings and texts."""

    def __init__(self) -> None:
        self.name, self.answers = "", list[Answer]()

    def add(self, name: str, answers: Sequence[Answer]) -> None:
        """Compare the answers of one session with those of the first.

        Raises:
            RuntimeError: they differ.
        """
        if not self.answers:
            self.name, self.answers = name, list(answers)
        if list(map(_output, answers)) != list(map(_output, self.answers)):
            raise RuntimeError(f"{name} gave other tokens, rankings or texts than {self.name}")


def _output(answer: Answer) -> tuple[Any, ...]:
    return [p.token_ids for p in answer.predictions], answer.ranking, answer.texts


def session_of(task: Task, *, session: str, prompts: Sequence[str]) -> Session:
    """The session of a `conf/pipeline` file.

    Args:
        session: `fresh` or `indexed`.
        prompts: asked one after the other; at least one, none empty.

    Raises:
        AtomError: neither kind of session, or an empty prompt.
    """
    if session not in ("fresh", "indexed"):
        raise AtomError(f"pipeline.session={session!r} is neither fresh nor indexed")
    if not prompts or not all(p.strip() for p in prompts):
        raise AtomError("pipeline.prompts needs at least one prompt, and none that is empty")
    return Session(task, session, tuple(prompts))


def share(key: str, value: float) -> float:
    """A cosine similarity from a `conf/pipeline` file.

    Raises:
        AtomError: outside -1 to 1.
    """
    if not -1.0 <= value <= 1.0:
        raise AtomError(f"pipeline.{key}={value}: a cosine similarity lies between -1 and 1")
    return value


def at_least_one(key: str, value: int) -> int:
    """A count from a `conf/pipeline` file.

    Raises:
        AtomError: below 1.
    """
    if value < 1:
        raise AtomError(f"pipeline.{key}={value}: must be at least 1")
    return value
