"""Video summaries (paper appendix B): from clip captions to scene summaries to one per video.

Neighbouring clips with similar captions form a scene. The decoder summarises a scene of several
captions and a video of several scenes; a single caption or scene is its own summary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atom_repro import prompts as prompt_templates
from atom_repro.datatypes import AtomError, Clip
from atom_repro.models.generation import GenerationSettings
from atom_repro.pipelines.captioned_clips import (
    CaptionedClips,
    Delivery,
    Progress,
    TaskResult,
    counted,
    source_name,
    time_range,
)
from atom_repro.pipelines.session import Session, checked_count, checked_similarity, session_of
from atom_repro.runtime.runtime import Runtime


@dataclass(frozen=True)
class SceneSummary:
    """A scene (time span) of one video: its clips, their captions and its summary `text`."""

    start_s: float
    end_s: float | None
    clips: tuple[Clip, ...]
    captions: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class VideoSummary:
    """The summary `text` of a video and those of its scenes."""

    name: str
    scenes: tuple[SceneSummary, ...]
    text: str


@dataclass(frozen=True)
class Summarisation:
    """The summarisation task; see `build` for its fields."""

    name: str
    scene_similarity: float
    most_scenes: int
    settings: GenerationSettings

    def respond(
        self, runtime: Runtime, captioned: CaptionedClips, prompt: str, item: str
    ) -> TaskResult:
        """Summarise every video, or only those whose name or file stem is the prompt.

        Raises:
            AtomError: no video of that name.
        """
        runtime.end_stage()
        names = {clip.path: source_name(clip) for clip in captioned.clips}
        if prompt and prompt != "all":
            chosen = {p: name for p, name in names.items() if prompt in (name, p.name, p.stem)}
            if not chosen:
                known = ", ".join(sorted(names.values())[:8])
                raise AtomError(f"no video {prompt!r} with a caption; there are {known}")
            names = chosen
        videos = tuple(
            self._summarise_video(runtime, captioned, path, name, item)
            for path, name in names.items()
        )
        texts = [scene.text for video in videos for scene in video.scenes]
        return TaskResult((), (*texts, *(video.text for video in videos)), videos)

    def deliver(self, reply: TaskResult, folder: Path, progress: Progress) -> Delivery:
        videos: tuple[VideoSummary, ...] = reply.result
        rows: list[tuple[str, ...]] = []
        for video in videos:
            rows.append((video.name, "all of it", video.text))
            rows += [("", time_range(s.start_s, s.end_s), s.text) for s in video.scenes]
        data = {
            "videos": [
                {
                    "video": video.name,
                    "summary": video.text,
                    "scenes": [
                        {
                            "start_s": scene.start_s,
                            "end_s": scene.end_s,
                            "summary": scene.text,
                            "captions": list(scene.captions),
                        }
                        for scene in video.scenes
                    ],
                }
                for video in videos
            ]
        }
        scenes = counted(sum(len(v.scenes) for v in videos), "scene")
        summary = f"{counted(len(videos), 'video')}, {scenes}"
        return Delivery(summary, ("video", "time", "summary"), tuple(rows), data)

    def _summarise_video(
        self, runtime: Runtime, captioned: CaptionedClips, path: Path, name: str, item: str
    ) -> VideoSummary:
        order = sorted(
            (i for i, clip in enumerate(captioned.clips) if clip.path == path),
            key=lambda i: captioned.clips[i].start_s,
        )
        scenes = tuple(
            self._summarise_scene(runtime, captioned, group, item)
            for group in group_scenes(captioned, order, self.scene_similarity)
        )
        return VideoSummary(name, scenes, self._merge(runtime, [s.text for s in scenes], item))

    def _summarise_scene(
        self, runtime: Runtime, captioned: CaptionedClips, group: Sequence[int], item: str
    ) -> SceneSummary:
        clips = tuple(captioned.clips[i] for i in group)
        captions = tuple(captioned.predictions[i].caption for i in group)
        text = captions[0]
        if len(set(captions)) > 1:
            scene_prompt = prompt_templates.scene_summary(captions)
            text = runtime.write(scene_prompt, self.settings, stage="summary", item=item).text
        return SceneSummary(clips[0].start_s, clips[-1].end_s, clips, captions, text)

    def _merge(self, runtime: Runtime, texts: Sequence[str], item: str) -> str:
        """Merge texts into one, at most `most_scenes` per prompt, in rounds."""
        texts = list(texts)
        while len(texts) > 1:
            groups = [
                texts[i : i + self.most_scenes] for i in range(0, len(texts), self.most_scenes)
            ]
            texts = [
                runtime.write(
                    prompt_templates.video_summary(group), self.settings, stage="summary", item=item
                ).text
                if len(group) > 1
                else group[0]
                for group in groups
            ]
        return texts[0]


def group_scenes(
    captioned: CaptionedClips, order: Sequence[int], threshold: float
) -> list[list[int]]:
    """Group neighbours in `order` whose captions have at least `threshold` cosine similarity."""
    groups: list[list[int]] = []
    for i in order:
        if groups and float(captioned.vectors[groups[-1][-1]] @ captioned.vectors[i]) >= threshold:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def build(
    *,
    name: str,
    session: str,
    prompts: list[str],
    scene_similarity: float,
    most_scenes: int,
    summary_beams: int,
    summary_tokens: int,
) -> Session:
    """Build the pipeline of a `conf/pipeline` file; see `session_of` for session and prompts.

    Args:
        scene_similarity: least cosine of neighbouring captions of one scene.
        most_scenes: scenes per summary prompt, at least 2; more are summarised in rounds.
        summary_beams: beams of a summary's generation.
        summary_tokens: maximum length of a summary.
    """
    if most_scenes < 2:
        raise AtomError(
            f"pipeline.most_scenes={most_scenes}: must be at least 2; merging one by one never ends"
        )
    task = Summarisation(
        name,
        checked_similarity("scene_similarity", scene_similarity),
        most_scenes,
        GenerationSettings(
            beams=summary_beams, max_new_tokens=checked_count("summary_tokens", summary_tokens)
        ),
    )
    return session_of(task, session=session, prompts=prompts)
