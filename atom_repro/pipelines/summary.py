"""Summaries (paper appendix B): clip captions to scene summaries to one summary a video.

Neighbouring clips whose captions are alike are one scene. A scene of several captions, and a video
of several scenes, are summed up by the decoder; one alone is its own summary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atom_repro import prompts as wording
from atom_repro.datatypes import AtomError, Clip
from atom_repro.models.generation import GenerationSettings
from atom_repro.pipelines.captioned_clips import Delivery, Footage, Progress, Reply, at_time
from atom_repro.pipelines.session import Session, at_least_one, session_of, share
from atom_repro.runtime.runtime import Runtime


@dataclass(frozen=True)
class SceneSummary:
    """A stretch of one video and what is to be seen in it."""

    start_s: float
    end_s: float | None
    clips: tuple[Clip, ...]
    captions: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class VideoSummary:
    video: Path
    scenes: tuple[SceneSummary, ...]
    text: str


@dataclass(frozen=True)
class Summary:
    name: str
    scene_similarity: float
    most_scenes: int
    settings: GenerationSettings

    def respond(self, runtime: Runtime, footage: Footage, prompt: str, item: str) -> Reply:
        """Sum up every video of the footage; the prompt, a file's stem, narrows it to one.

        Raises:
            AtomError: no video of that name.
        """
        runtime.end_stage()
        chosen = {path.stem: path for path in dict.fromkeys(c.path for c in footage.clips)}
        if prompt and prompt != "all":
            if prompt not in chosen:
                known = ", ".join(sorted(chosen)[:8])
                raise AtomError(f"no video {prompt!r} with a caption; there are {known}")
            chosen = {prompt: chosen[prompt]}
        videos = tuple(self._video(runtime, footage, path, item) for path in chosen.values())
        texts = [scene.text for video in videos for scene in video.scenes]
        return Reply((), (*texts, *(video.text for video in videos)), videos)

    def deliver(self, reply: Reply, folder: Path, progress: Progress) -> Delivery:
        videos: tuple[VideoSummary, ...] = reply.result
        rows: list[tuple[str, ...]] = []
        for video in videos:
            rows.append((video.video.name, "all of it", video.text))
            rows += [("", at_time(s.start_s, s.end_s), s.text) for s in video.scenes]
        data = {
            "videos": [
                {
                    "video": video.video.name,
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
        said = f"{len(videos)} videos, {sum(len(v.scenes) for v in videos)} scenes"
        return Delivery(said, ("video", "time", "summary"), tuple(rows), data)

    def _video(self, runtime: Runtime, footage: Footage, path: Path, item: str) -> VideoSummary:
        order = sorted(
            (i for i, clip in enumerate(footage.clips) if clip.path == path),
            key=lambda i: footage.clips[i].start_s,
        )
        scenes = tuple(
            self._scene(runtime, footage, group, item)
            for group in scenes_in(footage, order, self.scene_similarity)
        )
        return VideoSummary(path, scenes, self._joined(runtime, [s.text for s in scenes], item))

    def _scene(
        self, runtime: Runtime, footage: Footage, group: Sequence[int], item: str
    ) -> SceneSummary:
        clips = tuple(footage.clips[i] for i in group)
        captions = tuple(footage.predictions[i].caption for i in group)
        text = captions[0]
        if len(set(captions)) > 1:
            asked = wording.scene_summary(captions)
            text = runtime.write(asked, self.settings, stage="summary", item=item)
        return SceneSummary(clips[0].start_s, clips[-1].end_s, clips, captions, text)

    def _joined(self, runtime: Runtime, texts: Sequence[str], item: str) -> str:
        """One text of many, by rounds of at most `most_scenes` at a time."""
        texts = list(texts)
        while len(texts) > 1:
            groups = [
                texts[i : i + self.most_scenes] for i in range(0, len(texts), self.most_scenes)
            ]
            texts = [
                runtime.write(
                    wording.video_summary(group), self.settings, stage="summary", item=item
                )
                if len(group) > 1
                else group[0]
                for group in groups
            ]
        return texts[0]


def scenes_in(footage: Footage, order: Sequence[int], least: float) -> list[list[int]]:
    """Neighbours in `order` whose captions are at least so alike, together."""
    groups: list[list[int]] = []
    for i in order:
        if groups and float(footage.vectors[groups[-1][-1]] @ footage.vectors[i]) >= least:
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
    """The pipeline of a `conf/pipeline` file; see `session_of` for session and prompts.

    Args:
        scene_similarity: cosine from which neighbouring clips' captions are one scene's.
        most_scenes: summed up at a time, at least 2; more are summed up in rounds.
        summary_beams: of a summary's generation.
        summary_tokens: a summary's most tokens.
    """
    if most_scenes < 2:
        raise AtomError(f"pipeline.most_scenes={most_scenes}: one scene at a time never ends")
    task = Summary(
        name,
        share("scene_similarity", scene_similarity),
        most_scenes,
        GenerationSettings(
            beams=summary_beams, max_new_tokens=at_least_one("summary_tokens", summary_tokens)
        ),
    )
    return session_of(task, session=session, prompts=prompts)
