"""Video assembly (paper appendix A.1): prompt and clip captions to a script, script to a movie.

The captions of the clips most similar to the prompt go to the decoder that wrote them; it chooses
the clips, their order and a narration for each. The movie is cut from the source videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atom_repro import prompts as prompt_templates
from atom_repro.datatypes import Clip
from atom_repro.hosts.runner import RunnerPipeline
from atom_repro.models.generation import GenerationSettings
from atom_repro.pipelines.captioned_clips import (
    CaptionedClips,
    Delivery,
    Hit,
    Progress,
    TaskResult,
    counted,
    hit_data,
    no_match_message,
    rank_clips,
    source_name,
    time_range,
)
from atom_repro.pipelines.session import Session, checked_count, checked_similarity, session_of
from atom_repro.runtime.runtime import Runtime
from atom_repro.video.editing.cuts import Cut, without_overlap
from atom_repro.video.editing.subtitles import write_srt
from atom_repro.video.editing.verify import verify_movie
from atom_repro.video.editing.writer import exact_rate, render_movie


@dataclass(frozen=True)
class Shot:
    """One clip of a script and its narration."""

    clip: Clip
    caption: str
    narration: str
    similarity: float


@dataclass(frozen=True)
class Script:
    """Shots in display order. `written` is False where no line of the decoder's text names a clip;
    the shots are then all hits in rank order, with their captions as narration."""

    shots: tuple[Shot, ...]
    text: str
    written: bool


@dataclass(frozen=True)
class Assembly:
    """The video assembly task; see `build` for its fields."""

    name: str
    candidates: int
    least_similarity: float
    same_similarity: float
    fps: float
    least_cut_s: float
    settings: GenerationSettings

    def respond(
        self, runtime: Runtime, captioned: CaptionedClips, prompt: str, item: str
    ) -> TaskResult:
        hits = rank_clips(
            runtime,
            captioned,
            prompt,
            item,
            max_hits=self.candidates,
            least_similarity=self.least_similarity,
            same_similarity=self.same_similarity,
        )
        runtime.end_stage()
        if not hits:
            return TaskResult((), (), Script((), "", written=False))
        script = self.write(runtime, prompt, hits, item)
        return TaskResult(tuple(hits), (script.text,), script)

    def for_runner(self, session: str, prompts: Sequence[str]) -> RunnerPipeline:
        """The same, up to the script's text, for the C++ runner."""
        asked = [(prompt, prompt_templates.script_instruction(prompt)) for prompt in prompts]
        return RunnerPipeline(
            session, asked, self.candidates, self.least_similarity, self.same_similarity,
            self.settings,
        )  # fmt: skip

    def write(self, runtime: Runtime, prompt: str, hits: Sequence[Hit], item: str) -> Script:
        """Generate the script for ranked clips with the decoder."""
        script_prompt = prompt_templates.script(prompt, [hit.caption for hit in hits])
        text = runtime.write(script_prompt, self.settings, stage="script", item=item).text
        return parse_script(text, hits)

    def deliver(self, reply: TaskResult, folder: Path, progress: Progress) -> Delivery:
        """Cut and stitch the shots: `movie.mp4`, `movie.srt` and `movie.edit.json` in `folder`.

        The movie is decoded again and verified against its edit list before this returns.

        Raises:
            AtomError: no shot can be decoded, or the disk is full.
        """
        script: Script = reply.result
        columns = ("video", "time", "caption", "narration")
        if not script.shots:
            return Delivery(no_match_message(self.least_similarity), columns, (), {"shots": []})
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
        edited = render_movie(
            without_overlap(cuts, self.least_cut_s), movie, fps=self.fps, progress=progress
        )
        edited.write(folder / "movie.edit.json")
        write_srt(edited, folder / "movie.srt")
        verify_movie(edited, movie)
        shown_cuts = [cut for cut in edited.cuts if cut.frames]
        summary = (
            f"{counted(len(shown_cuts), 'shot')}, {edited.duration_s:.1f} s, "
            f"{edited.width}x{edited.height}"
        )
        if not script.written:
            summary += (
                "; the decoder wrote no script that could be used, so the clips that fit best come "
                "first, each with its caption as narration"
            )
        names = {shot.clip.path.resolve(): source_name(shot.clip) for shot in script.shots}
        faults = tuple(
            f"{names[cut.path]}, {time_range(cut.source_start_s, cut.source_end_s)}: {cut.detail}"
            for cut in edited.cuts
            if cut.detail
        )
        rows = tuple(
            (
                names[cut.path],
                time_range(cut.source_start_s, cut.source_end_s),
                cut.caption,
                cut.narration,
            )
            for cut in shown_cuts
        )
        data = {
            "script": script.text,
            "written_by_decoder": script.written,
            "candidates": hit_data(reply.hits),
        }
        return Delivery(summary, columns, rows, data, movie.name, faults)


def parse_script(text: str, hits: Sequence[Hit]) -> Script:
    """Parse the decoder's text into a script; without a valid line, all hits in rank order."""
    lines = prompt_templates.read_script(text, len(hits))
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
    """Build the pipeline of a `conf/pipeline` file; see `session_of` for session and prompts.

    Args:
        candidates: clips whose captions the decoder gets (the paper's top k).
        least_similarity: cosine below which a clip is no match.
        same_similarity: cosine of two captions above which their clips are duplicates.
        fps: frame rate of the movie.
        least_cut_s: drop a shot with less than this outside its overlap with earlier shots.
        script_beams: beams of the script's generation.
        script_tokens: maximum length of a script.
        forbid_end: generate exactly `script_tokens`, for random weights.
    """
    exact_rate(fps)
    task = Assembly(
        name,
        checked_count("candidates", candidates),
        checked_similarity("least_similarity", least_similarity),
        checked_similarity("same_similarity", same_similarity),
        fps,
        least_cut_s,
        GenerationSettings(
            beams=checked_count("script_beams", script_beams),
            max_new_tokens=checked_count("script_tokens", script_tokens),
            forbid_end=forbid_end,
        ),
    )
    return session_of(task, session=session, prompts=prompts)
