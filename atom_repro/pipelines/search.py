"""Text-to-clip search (paper section 5.1 and appendix B): the clips whose captions match a prompt.

A clip without a caption cannot be found. Clips below a similarity threshold are not returned: no
match is better than a bad match.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atom_repro.hosts.runner import RunnerPipeline
from atom_repro.pipelines.captioned_clips import (
    HIT_COLUMNS,
    CaptionedClips,
    Delivery,
    Progress,
    TaskResult,
    counted,
    hit_data,
    hit_rows,
    no_match_message,
    rank_clips,
)
from atom_repro.pipelines.session import Session, checked_count, checked_similarity, session_of
from atom_repro.runtime.runtime import Runtime


@dataclass(frozen=True)
class ClipSearch:
    """The text-to-clip search task; see `build` for its fields."""

    name: str
    most: int
    least_similarity: float

    def respond(
        self, runtime: Runtime, captioned: CaptionedClips, prompt: str, item: str
    ) -> TaskResult:
        hits = rank_clips(
            runtime,
            captioned,
            prompt,
            item,
            max_hits=self.most,
            least_similarity=self.least_similarity,
        )
        return TaskResult(tuple(hits), (), tuple(hits))

    def for_runner(self, session: str, prompts: Sequence[str]) -> RunnerPipeline:
        """The same for the C++ runner."""
        asked = [(prompt, "") for prompt in prompts]
        return RunnerPipeline(session, asked, self.most, self.least_similarity, 1.0, None)

    def deliver(self, reply: TaskResult, folder: Path, progress: Progress) -> Delivery:
        found = counted(len(reply.hits), "clip")
        summary = found if reply.hits else no_match_message(self.least_similarity)
        return Delivery(summary, HIT_COLUMNS, hit_rows(reply.hits), {"clips": hit_data(reply.hits)})


def build(
    *, name: str, session: str, prompts: list[str], most: int, least_similarity: float
) -> Session:
    """Build the pipeline of a `conf/pipeline` file; see `session_of` for session and prompts.

    Args:
        most: maximum number of clips returned.
        least_similarity: cosine below which a clip is no match; -1 keeps all clips.
    """
    task = ClipSearch(
        name, checked_count("most", most), checked_similarity("least_similarity", least_similarity)
    )
    return session_of(task, session=session, prompts=prompts)
