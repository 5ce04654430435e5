"""Video assembly (paper appendix A.1): a prompt and clips to a script, and the script to a movie.

The captions of the clips that fit the prompt best go to the same decoder that wrote them; it says
which clips to show, in which order, and what to say over each. The movie is cut from the sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atom_repro import prompts as wording
from atom_repro.datatypes import Clip
from atom_repro.models.generation import GenerationSettings
from atom_repro.pipelines.captioned_clips import (
    Delivery,
    Footage,
    Hit,
    Progress,
    Reply,
    at_time,
    find,
    hit_data,
    nothing,
)
from atom_repro.pipelines.session import Session, at_least_one, session_of, share
from atom_repro.runtime.runtime import Runtime
from atom_repro.video.editing.cuts import Cut, without_overlap
from atom_repro.video.editing.subtitles import write_srt
from atom_repro.video.editing.verify import verify
from atom_repro.video.editing.writer import edit


@dataclass(frozen=True)
class Shot:
    """One clip of a script and what is said over it."""

    clip: Clip
    caption: str
    narration: str
    similarity: float


@dataclass(frozen=True)
class Script:
    """Shots in the order in which to show them. `written` is False where the decoder's text had no
    line that names a clip: the clips are then shown as they were ranked, under their captions."""

    shots: tuple[Shot, ...]
    text: str
    written: bool


@dataclass(frozen=True)
class Assembly:
    name: str
    candidates: int
    least_similarity: float
    same_similarity: float
    fps: float
    least_cut_s: float
    settings: GenerationSettings

    def respond(self, runtime: Runtime, footage: Footage, prompt: str, item: str) -> Reply:
        hits = find(
            runtime,
            footage,
            prompt,
            item,
            most=self.candidates,
            least_similarity=self.least_similarity,
            same_similarity=self.same_similarity,
        )
        runtime.end_stage()
        if not hits:
            return Reply((), (), Script((), "", written=False))
        script = self.write(runtime, prompt, hits, item)
        return Reply(tuple(hits), (script.text,), script)

    def write(self, runtime: Runtime, prompt: str, hits: Sequence[Hit], item: str) -> Script:
        """Ask the decoder for the script of clips that were found."""
        asked = wording.script(prompt, [hit.caption for hit in hits])
        text = runtime.write(asked, self.settings, stage="script", item=item)
        return read(text, hits)

    def deliver(self, reply: Reply, folder: Path, progress: Progress) -> Delivery:
        """Cut and stitch the shots: `movie.mp4`, `movie.srt` and `movie.edit.json` in `folder`.

        The movie is decoded again and held against its edit list before this returns.

        Raises:
            AtomError: no shot can be decoded, or the disk is full.
        """
        script: Script = reply.result
        columns = ("video", "time", "caption", "narration")
        if not script.shots:
            return Delivery(nothing(self.least_similarity), columns, (), {"shots": []})
        cuts = [
            Cut(
                shot.clip.video_id,
                shot.clip.path,
                shot.clip.start_s,
                shot.clip.end_s,
                shot.caption,
                shot.narration,
            )
            for shot in script.shots
        ]
        movie = folder / "movie.mp4"
        edited = edit(
            without_overlap(cuts, self.least_cut_s), movie, fps=self.fps, progress=progress
        )
        edited.write(folder / "movie.edit.json")
        write_srt(edited, folder / "movie.srt")
        verify(edited, movie)
        shown = [cut for cut in edited.cuts if cut.frames]
        said = f"{len(shown)} shots, {edited.duration_s:.1f} s, {edited.width}x{edited.height}"
        if not script.written:
            said += "; the decoder wrote no script, so the clips stand as they were ranked"
        broken = [f"{cut.source}: {cut.detail}" for cut in edited.cuts if cut.detail]
        rows = tuple(
            (
                cut.source,
                at_time(cut.source_start_s, cut.source_end_s),
                cut.caption,
                cut.narration,
            )
            for cut in shown
        )
        data = {
            "script": script.text,
            "written_by_decoder": script.written,
            "candidates": hit_data(reply.hits),
            "faults": broken,
        }
        return Delivery(said, columns, rows, data, movie.name)


def read(text: str, hits: Sequence[Hit]) -> Script:
    """The script in a decoder's text; the ranking where there is none in it."""
    lines = wording.read_script(text, len(hits))
    if not lines:
        ranked = (Shot(h.clip, h.caption, h.caption, h.similarity) for h in hits)
        return Script(tuple(ranked), text, written=False)
    shots = []
    for line in lines:
        hit = hits[line.number - 1]
        shots.append(Shot(hit.clip, hit.caption, line.narration or hit.caption, hit.similarity))
    return Script(tuple(shots), text, written=True)


def build(
    *,
    name: str,
    session: str,
    prompts: list[str],
    candidates: int,
    least_similarity: float,
    same_similarity: float,
    fps: float,
    least_cut_s: float,
    script_beams: int,
    script_tokens: int,
    forbid_end: bool,
) -> Session:
    """The pipeline of a `conf/pipeline` file; see `session_of` for session and prompts.

    Args:
        candidates: clips whose captions the decoder gets (the paper's top k).
        least_similarity: cosine below which a clip is no match.
        same_similarity: cosine above which two captions' clips pass for the same footage.
        fps: of the movie.
        least_cut_s: what overlaps an earlier shot and has less than this of its own is left out.
        script_beams: of the script's generation.
        script_tokens: a script's most tokens.
        forbid_end: write exactly `script_tokens`, which random weights need.
    """
    task = Assembly(
        name,
        at_least_one("candidates", candidates),
        share("least_similarity", least_similarity),
        share("same_similarity", same_similarity),
        fps,
        least_cut_s,
        GenerationSettings(beams=script_beams, max_new_tokens=script_tokens, forbid_end=forbid_end),
    )
    return session_of(task, session=session, prompts=prompts)
