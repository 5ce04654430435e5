"""Question answering (paper appendix B), over the captions of clips or over what is seen in one.

`captions` answers from the captions nearest to the question, in the order of the footage: a text
task of the decoder. `visual` puts the question behind the visual tokens of the nearest clip.
"""

from dataclasses import dataclass
from pathlib import Path

from atom_repro import prompts as wording
from atom_repro.datatypes import AtomError
from atom_repro.models.generation import GenerationSettings
from atom_repro.pipelines.captioned_clips import (
    HIT_COLUMNS,
    Delivery,
    Footage,
    Hit,
    Progress,
    Reply,
    find,
    hit_data,
    listed,
    nothing,
)
from atom_repro.pipelines.session import Session, at_least_one, session_of, share
from atom_repro.runtime.runtime import Runtime

LOOKS_AT = ("captions", "visual")


@dataclass(frozen=True)
class Answered:
    """An answer, empty where nothing fits the question, and the clips it rests on."""

    question: str
    answer: str
    evidence: tuple[Hit, ...]


@dataclass(frozen=True)
class Questions:
    name: str
    looks_at: str
    candidates: int
    least_similarity: float
    settings: GenerationSettings

    def respond(self, runtime: Runtime, footage: Footage, prompt: str, item: str) -> Reply:
        hits = find(
            runtime,
            footage,
            prompt,
            item,
            most=self.candidates if self.looks_at == "captions" else 1,
            least_similarity=self.least_similarity,
        )
        runtime.end_stage()
        if not hits:
            return Reply((), (), Answered(prompt, "", ()))
        if self.looks_at == "visual":
            answer = runtime.ask(hits[0].clip, wording.visual_answer(prompt), self.settings)
        else:
            place = {clip.video_id: i for i, clip in enumerate(footage.clips)}
            shown = sorted(hits, key=lambda hit: place[hit.clip.video_id])
            asked = wording.answer(prompt, [hit.caption for hit in shown])
            answer = runtime.write(asked, self.settings, stage="answer", item=item)
        return Reply(tuple(hits), (answer,), Answered(prompt, answer, tuple(hits)))

    def deliver(self, reply: Reply, folder: Path, progress: Progress) -> Delivery:
        answered: Answered = reply.result
        if not answered.evidence:
            said = nothing(self.least_similarity)
        else:
            said = answered.answer or "the decoder gave no answer"
        data = {
            "question": answered.question,
            "answer": answered.answer,
            "evidence": hit_data(answered.evidence),
        }
        return Delivery(said, HIT_COLUMNS, listed(answered.evidence), data)


def build(
    *,
    name: str,
    session: str,
    prompts: list[str],
    looks_at: str,
    candidates: int,
    least_similarity: float,
    answer_beams: int,
    answer_tokens: int,
) -> Session:
    """The pipeline of a `conf/pipeline` file; see `session_of` for session and prompts.

    Args:
        looks_at: `captions`, or `visual` for the visual tokens of the best clip.
        candidates: captions that the decoder gets.
        least_similarity: cosine below which a clip has nothing to do with the question.
        answer_beams: of an answer's generation.
        answer_tokens: an answer's most tokens.
    """
    if looks_at not in LOOKS_AT:
        raise AtomError(f"pipeline.looks_at={looks_at!r} is none of {', '.join(LOOKS_AT)}")
    task = Questions(
        name,
        looks_at,
        at_least_one("candidates", candidates),
        share("least_similarity", least_similarity),
        GenerationSettings(
            beams=answer_beams, max_new_tokens=at_least_one("answer_tokens", answer_tokens)
        ),
    )
    return session_of(task, session=session, prompts=prompts)
