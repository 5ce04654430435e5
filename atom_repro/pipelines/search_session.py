"""The retrieval pipeline as an application runs it: videos in, prompts asked, best clips out.

Paper appendix B. A session is the life of one process: in a `fresh` one every prompt processes
the videos again, as in the paper's end-to-end figures; in an `indexed` one captions and their
embeddings are made once, and a prompt only embeds and ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from atom_repro.datatypes import AtomError, Clip, Prediction
from atom_repro.runtime.runtime import Runtime


@dataclass(frozen=True)
class Answer:
    """What one prompt got: the captions it searched, clips by falling similarity, and when it
    began and ended on the session's clock."""

    prompt: str
    predictions: tuple[Prediction, ...]
    ranking: tuple[str, ...]
    start_s: float
    end_s: float


@dataclass(frozen=True)
class SearchSession:
    """The pipeline's settings; `run` is one session."""

    name: str
    session: str
    prompts: tuple[str, ...]

    def run(self, runtime: Runtime, clips: Sequence[Clip]) -> list[Answer]:
        """Ask every prompt, over the same clips."""
        answers: list[Answer] = []
        predictions: tuple[Prediction, ...] = ()
        index: Tensor | None = None
        for number, prompt in enumerate(self.prompts):
            start_s = runtime.timeline.now()
            if index is None or self.session == "fresh":
                predictions = tuple(runtime.caption(clips))
                index = runtime.embed([p.caption for p in predictions], f"index {number}")
            wanted = runtime.embed([prompt], f"prompt {number}")
            with runtime.timeline.span("rank", "host", f"prompt {number}"):
                similarity = (index @ wanted[0]).tolist()
                order = sorted(range(len(clips)), key=lambda i: (-similarity[i], i))
            runtime.end_stage()
            ranking = tuple(clips[i].video_id for i in order)
            answers.append(Answer(prompt, predictions, ranking, start_s, runtime.timeline.now()))
        return answers


def build(*, name: str, session: str, prompts: list[str]) -> SearchSession:
    """The pipeline of a `conf/pipeline` file.

    Args:
        session: `fresh` or `indexed`.
        prompts: asked one after the other; at least one, none empty.
    """
    if session not in ("fresh", "indexed"):
        raise AtomError(f"pipeline.session={session!r} is neither fresh nor indexed")
    if not prompts or not all(p.strip() for p in prompts):
        raise AtomError("pipeline.prompts needs at least one prompt, and none that is empty")
    return SearchSession(name, session, tuple(prompts))
