"""Question answering (paper appendix B), from the captions of clips or the visual tokens of one.

`captions` answers from the captions nearest to the question, in the order of the clips: a text
task of the decoder. `visual` puts the question behind the visual tokens of the nearest clip.
"""

from dataclasses import dataclass
from pathlib import Path

from atom_repro import prompts as prompt_templates
from atom_repro.datatypes import AtomError
from atom_repro.models.generation import GenerationSettings
from atom_repro.pipelines.captioned_clips import (
    HIT_COLUMNS,
    CaptionedClips,
    Delivery,
    Hit,
    Progress,
    TaskResult,
    hit_data,
    hit_rows,
    no_match_message,
    rank_clips,
)
from atom_repro.pipelines.session import Session, checked_count, checked_similarity, session_of
from atom_repro.runtime.runtime import Runtime

EVIDENCE_KINDS = ("captions", "visual")


@dataclass(frozen=True)
class AnswerWithEvidence:
    """An answer, empty where no clip matches the question, and the clips it is based on."""

    question: str
    answer: str
    evidence: tuple[Hit, ...]


@dataclass(frozen=True)
class QuestionAnswering:
    """The question answering task; see `build` for its fields."""

    name: str
    looks_at: str
    candidates: int
    least_similarity: float
    settings: GenerationSettings

    def respond(
        self, runtime: Runtime, captioned: CaptionedClips, prompt: str, item: str
    ) -> TaskResult:
        hits = rank_clips(
            runtime,
            captioned,
            prompt,
            item,
            max_hits=self.candidates if self.looks_at == "captions" else 1,
            least_similarity=self.least_similarity,
        )
        runtime.end_stage()
        if not hits:
            return TaskResult((), (), AnswerWithEvidence(prompt, "", ()))
        if self.looks_at == "visual":
            answer = runtime.ask(
                hits[0].clip, prompt_templates.visual_answer(prompt), self.settings
            ).text
        else:
            position = {clip.video_id: i for i, clip in enumerate(captioned.clips)}
            ordered = sorted(hits, key=lambda hit: position[hit.clip.video_id])
            text_prompt = prompt_templates.answer(prompt, [hit.caption for hit in ordered])
            answer = runtime.write(text_prompt, self.settings, stage="answer", item=item).text
        return TaskResult(tuple(hits), (answer,), AnswerWithEvidence(prompt, answer, tuple(hits)))

    def deliver(self, reply: TaskResult, folder: Path, progress: Progress) -> Delivery:
        result: AnswerWithEvidence = reply.result
        if not result.evidence:
            summary = no_match_message(self.least_similarity)
        else:
            summary = result.answer or "the decoder gave no answer"
        data = {
            "question": result.question,
            "answer": result.answer,
            "evidence": hit_data(result.evidence),
        }
        return Delivery(summary, HIT_COLUMNS, hit_rows(result.evidence), data)


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
    """Build the pipeline of a `conf/pipeline` file; see `session_of` for session and prompts.

    Args:
        looks_at: `captions`, or `visual` for the visual tokens of the best clip.
        candidates: number of captions that the decoder gets.
        least_similarity: cosine below which a clip is no match for the question.
        answer_beams: beams of an answer's generation.
        answer_tokens: maximum length of an answer.
    """
    if looks_at not in EVIDENCE_KINDS:
        raise AtomError(f"pipeline.looks_at={looks_at!r} is none of {', '.join(EVIDENCE_KINDS)}")
    task = QuestionAnswering(
        name,
        looks_at,
        checked_count("candidates", candidates),
        checked_similarity("least_similarity", least_similarity),
        GenerationSettings(
            beams=answer_beams, max_new_tokens=checked_count("answer_tokens", answer_tokens)
        ),
    )
    return session_of(task, session=session, prompts=prompts)
