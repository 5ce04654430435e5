"""Text-to-clip search (paper section 5.1 and appendix B): the clips whose captions fit a prompt.

A clip without a caption cannot be found. What is less similar than a threshold is not shown: an
answer that nothing fits is better than a bad match.
"""

from dataclasses import dataclass
from pathlib import Path

from atom_repro.pipelines.captioned_clips import (
    HIT_COLUMNS,
    Delivery,
    Footage,
    Progress,
    Reply,
    find,
    hit_data,
    listed,
    nothing,
)
from atom_repro.pipelines.session import Session, at_least_one, session_of, share
from atom_repro.runtime.runtime import Runtime


@dataclass(frozen=True)
class ClipSearch:
    name: str
    most: int
    least_similarity: float

    def respond(self, runtime: Runtime, footage: Footage, prompt: str, item: str) -> Reply:
        hits = find(
            runtime,
            footage,
            prompt,
            item,
            most=self.most,
            least_similarity=self.least_similarity,
        )
        return Reply(tuple(hits), (), tuple(hits))

    def deliver(self, reply: Reply, folder: Path, progress: Progress) -> Delivery:
        said = f"{len(reply.hits)} clips" if reply.hits else nothing(self.least_similarity)
        return Delivery(said, HIT_COLUMNS, listed(reply.hits), {"clips": hit_data(reply.hits)})


def build(
    *, name: str, session: str, prompts: list[str], most: int, least_similarity: float
) -> Session:
    """The pipeline of a `conf/pipeline` file; see `session_of` for session and prompts.

    Args:
        most: clips an answer lists at the most.
        least_similarity: cosine below which a clip is no match; -1 lists everything.
    """
    task = ClipSearch(name, at_least_one("most", most), share("least_similarity", least_similarity))
    return session_of(task, session=session, prompts=prompts)
