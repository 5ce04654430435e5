"""The generated data set: encoded videos with captions, queries and known contents.

It replaces MSR-VTT where nothing can be downloaded: H.264 files, five different references and
one query per clip, and, unlike real data, the true attributes of every scene. `build` is cheap;
`prepare` writes the files once to a folder named by a hash of the settings, and resumes where a
killed run stopped. Rendering is in `world`, captions are in `grammar`.

    dataset = build(root=".atom/data", seed=0, train=4000, ...)
    dataset.prepare()
    dataset.clips("test")[0].references
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from atom_repro.data.toy.grammar import attributes_in, attributes_of, describe_differently
from atom_repro.data.toy.training_tasks import ToyTasks, task_texts
from atom_repro.data.toy.world import (
    COLOURS,
    INVISIBLE,
    MOTIONS,
    OBJECTS,
    PLACES,
    RELATION_MOTIONS,
    RELATIONS,
    Scene,
    render,
)
from atom_repro.datatypes import AtomError, Clip, Query
from atom_repro.video.file import write_video

GENERATOR = 1  # raise it with any change to pictures, sentences or splits

SPLITS = ("train", "validation", "test")
_LONG_VIDEOS = "videos"
_REFERENCES_PER_CLIP = 5
_TWO_SCENE_SHARE = 0.18
_RELATION_SHARE = 0.2
_WORKERS = 2
# In units of a clip's length: windows are as long as a clip and should mostly show one scene.
_SCENE_LENGTH_RANGE = (0.8, 1.5)
_VIDEO_LENGTH_RANGE = (3.0, 6.0)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Settings:
    """All settings that determine the files' contents; their hash names the folder."""

    seed: int
    train: int
    validation: int
    test: int
    held_out_share: float
    long_videos: int
    size: int
    fps: int
    clip_s: float
    generator: int = GENERATOR


@dataclass(frozen=True)
class _VideoPlan:
    """One video before rendering: scenes with their lengths in frames."""

    split: str
    video_id: str
    scenes: tuple[tuple[Scene, int], ...]
    combination: str

    @property
    def file(self) -> str:
        return f"{self.split}/{self.video_id}.mp4"


def build(
    *,
    root: str,
    seed: int,
    train: int,
    validation: int,
    test: int,
    held_out_share: float,
    long_videos: int,
    size: int,
    fps: int,
    clip_s: float,
) -> "ToyDataset":
    """Create the data set; no file is read or written before `prepare`.

    Args:
        root: folder that holds generated data sets, one folder each.
        seed: of scenes, captions and pixels. Held-out pairs do not depend on it.
        train: number of clips, as `validation` and `test`. Half of the test clips show
            combinations that training never shows.
        validation: see `train`.
        test: see `train`.
        held_out_share: share of all colour-object and of all object-motion pairs that only
            held-out test clips show.
        long_videos: number of videos of three to five scenes, three to six clips long.
        size: side of the square picture in pixels, even.
        fps: frames per second.
        clip_s: length of a clip in seconds.

    Raises:
        AtomError: a value is out of range; names its key.
    """
    for key, value in {"train": train, "validation": validation, "test": test}.items():
        if value < 0:
            raise AtomError(f"dataset.{key}={value}: a number of clips cannot be negative")
    if size < 32 or size % 2:
        raise AtomError(f"dataset.size={size}: must be even and at least 32 pixels")
    if not 0 < held_out_share < 0.5:
        raise AtomError(f"dataset.held_out_share={held_out_share}: must lie between 0 and 0.5")
    if fps < 1 or clip_s * fps < 12:
        raise AtomError(
            f"dataset.fps={fps} for dataset.clip_s={clip_s:g}: a clip needs 12 frames or more"
        )
    settings = _Settings(
        seed, train, validation, test, held_out_share, long_videos, size, fps, float(clip_s)
    )
    return ToyDataset(Path(root), settings)


class ToyDataset:
    """Clips of the three splits and the long videos; see `build`."""

    name = "toy"

    def __init__(self, root: Path, settings: _Settings) -> None:
        self._settings = settings
        digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
        self.folder = root / f"{self.name}-{digest.hexdigest()[:12]}"

    @property
    def manifest(self) -> Path:
        """Path of the list of files with their contents; written last, so it marks completeness."""
        return self.folder / "manifest.json"

    @property
    def fingerprint(self) -> str:
        """sha256 of the manifest, which holds the sha256 of every video.

        Raises:
            AtomError: before `prepare`.
        """
        return hashlib.sha256(self._manifest_bytes()).hexdigest()

    def prepare(self, progress: Progress | None = None) -> None:
        """Generate missing files; a second call only checks that the files exist.

        `progress` is called with (finished files, all files). Files are written atomically, so
        that an interrupted call loses only those being written.
        """
        if self.manifest.is_file() and all(self._path(row).is_file() for row in self._rows):
            return
        plans = list(_plan_videos(self._settings))
        missing = [plan for plan in plans if not (self.folder / plan.file).is_file()]
        done = len(plans) - len(missing)
        pool = ThreadPoolExecutor(_WORKERS)
        try:
            for future in as_completed([pool.submit(self._generate, plan) for plan in missing]):
                future.result()
                done += 1
                if progress is not None:
                    progress(done, len(plans))
        finally:
            # On Ctrl-C or an error: finish the running files, start no other.
            pool.shutdown(wait=True, cancel_futures=True)
        self._write_manifest([self._row(plan) for plan in plans])

    def clips(self, split: str) -> list[Clip]:
        """The clips of train, validation or test, in a fixed order.

        `meta["scenes"]` holds each scene's attributes with start_s and end_s, and
        `meta["combination"]` is "seen" or "held_out" (test alternates between the two).

        Raises:
            AtomError: an unknown split, or `prepare` was not called.
        """
        if split not in SPLITS:
            raise AtomError(f"the toy data set has no split {split!r}; choose one of {SPLITS}")
        return [self._clip(row) for row in self._rows if row["split"] == split]

    def videos(self) -> list[Clip]:
        """The long videos; each entry of `meta["scenes"]` has references of its own."""
        return [self._clip(row) for row in self._rows if row["split"] == _LONG_VIDEOS]

    def text_tasks(
        self,
        *,
        mix: Mapping[str, float],
        row_words: int,
        max_captions: int,
        curriculum_steps: int,
        seed: int,
    ) -> ToyTasks:
        """Examples of the text tasks for training; see `ToyTasks` for the arguments."""
        return ToyTasks(
            self,
            mix=mix,
            row_words=row_words,
            max_captions=max_captions,
            curriculum_steps=curriculum_steps,
            seed=seed,
        )

    def task_texts(self, *, rows: int, seed: int) -> list[str]:
        """Prompts and targets of every text task; see `training_tasks.task_texts`."""
        return task_texts(self, rows=rows, seed=seed)

    def training_scene(self, rng: random.Random) -> Scene:
        """Draw a scene that training may show: no held-out pair, no scene of an evaluation."""
        while True:
            scene = _draw_scene(rng)
            if self.may_train_on(scene):
                return scene

    def may_train_on(self, scene: Scene) -> bool:
        return (
            not _has_held_out_pair(scene, self._held_out_pairs)
            and scene not in self._evaluation_scenes
        )

    @cached_property
    def _held_out_pairs(self) -> "Pairs":
        return _select_held_out_pairs(self._settings)

    @cached_property
    def _evaluation_scenes(self) -> set[Scene]:
        rows = [row for row in self._rows if row["split"] != "train"]
        return {Scene.from_meta(scene) for row in rows for scene in row["meta"]["scenes"]}

    def stated(self, caption: str) -> dict[str, set[str]]:
        """Parse the attributes that a caption states; see `grammar.attributes_in`."""
        return attributes_in(caption)

    def truth(self, clip: Clip) -> dict[str, set[str]]:
        """The true attributes of a clip, in the form of `stated`."""
        return true_attributes(clip)

    def _clip(self, row: dict[str, Any]) -> Clip:
        queries = tuple(
            Query(f"{row['video_id']}-q{i}", text) for i, text in enumerate(row["queries"])
        )
        return Clip(
            dataset=self.name,
            split=row["split"],
            video_id=row["video_id"],
            path=self._path(row),
            source_id=row["video_id"],
            references=tuple(row["references"]),
            queries=queries,
            meta=row["meta"],
        )

    def _path(self, row: dict[str, Any]) -> Path:
        return self.folder / str(row["file"])

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self._manifest_bytes())["videos"]
        return rows

    def _manifest_bytes(self) -> bytes:
        if not self.manifest.is_file():
            raise AtomError(f"{self.manifest}: not there; call prepare() to generate the data set")
        return self.manifest.read_bytes()

    def _write_manifest(self, rows: list[dict[str, Any]]) -> None:
        held = {
            kind: sorted(pairs) for kind, pairs in _select_held_out_pairs(self._settings).items()
        }
        content = {"settings": asdict(self._settings), "held_out": held, "videos": rows}
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.manifest.with_suffix(".part")
        unfinished.write_text(json.dumps(content, sort_keys=True) + "\n", encoding="utf-8")
        unfinished.replace(self.manifest)
        self.__dict__.pop("_rows", None)

    def _generate(self, plan: _VideoPlan) -> None:
        settings = self._settings
        rng = np.random.default_rng(_seed(settings, plan.video_id, "pixels"))
        flash_frames = settings.clip_s * settings.fps / 6
        parts = [
            render(scene, frames=frames, size=settings.size, flash_frames=flash_frames, rng=rng)
            for scene, frames in plan.scenes
        ]
        write_video(self.folder / plan.file, np.concatenate(parts), settings.fps, crf=27)

    def _row(self, plan: _VideoPlan) -> dict[str, Any]:
        rng = random.Random(_seed(self._settings, plan.video_id, "words"))
        scenes, start = [], 0
        for scene, frames in plan.scenes:
            at_s = {"start_s": start / self._settings.fps}
            at_s["end_s"] = (start + frames) / self._settings.fps
            scenes.append(scene.as_meta() | at_s)
            start += frames
        sentences: list[str] = []
        if plan.split == _LONG_VIDEOS:
            for entry, (scene, _) in zip(scenes, plan.scenes, strict=True):
                entry["references"] = describe_differently([scene], _REFERENCES_PER_CLIP, rng)
        else:
            sentences = describe_differently(
                [s for s, _ in plan.scenes], _REFERENCES_PER_CLIP + 1, rng
            )
        return {
            "video_id": plan.video_id,
            "split": plan.split,
            "file": plan.file,
            "sha256": hashlib.sha256((self.folder / plan.file).read_bytes()).hexdigest(),
            "references": sentences[:_REFERENCES_PER_CLIP],
            "queries": sentences[_REFERENCES_PER_CLIP:] if plan.split != "train" else [],
            "meta": {"combination": plan.combination, "scenes": scenes},
        }


def true_attributes(clip: Clip) -> dict[str, set[str]]:
    """The true attributes of a clip of this data set, in the form of `attributes_in`."""
    return attributes_of([Scene.from_meta(scene) for scene in clip.meta["scenes"]])


# --- Sampling of scenes -------------------------------------------------------------------

Pairs = dict[str, set[tuple[str, str]]]


def _seed(settings: _Settings, *parts: str) -> int:
    """Derive a seed per use, so that no clip depends on the number of others."""
    text = "/".join([str(settings.seed), *parts])
    return int.from_bytes(hashlib.md5(text.encode()).digest()[:8])


def _select_held_out_pairs(settings: _Settings) -> Pairs:
    """Pairs that only held-out test clips show: the first by md5, the same for every seed."""

    def first_by_hash(kind: str, pairs: list[tuple[str, str]]) -> set[tuple[str, str]]:
        pairs.sort(key=lambda pair: hashlib.md5(f"{kind}:{pair[0]}:{pair[1]}".encode()).digest())
        return set(pairs[: round(len(pairs) * settings.held_out_share)])

    return {
        "colour_object": first_by_hash("colour_object", [(c, o) for c in COLOURS for o in OBJECTS]),
        "object_motion": first_by_hash("object_motion", [(o, m) for o in OBJECTS for m in MOTIONS]),
    }


def _has_held_out_pair(scene: Scene, held_out_pairs: Pairs) -> bool:
    return any(
        (colour, thing) in held_out_pairs["colour_object"]
        or (thing, scene.motion) in held_out_pairs["object_motion"]
        for colour, thing in scene.things
    )


def _plan_videos(settings: _Settings) -> Iterator[_VideoPlan]:
    """Plan all videos. Test comes first, so that it is the same for any size of training set; no
    two evaluation clips have the same scenes, and no training clip has those of one of them."""
    held_out_pairs = _select_held_out_pairs(settings)
    used: set[tuple[Scene, ...]] = set()
    counts = {"test": settings.test, "validation": settings.validation, "train": settings.train}
    for split in ("test", "validation", _LONG_VIDEOS, "train"):
        for i in range(counts.get(split, settings.long_videos)):
            video_id = f"toy-{split}-{i:05d}"
            rng = random.Random(_seed(settings, video_id, "scenes"))
            if split == _LONG_VIDEOS:
                lengths = _video_lengths(settings, rng)
            else:
                lengths = _clip_lengths(settings, rng)
            is_held_out = split == "test" and i % 2 == 1
            scenes = _draw_scenes(len(lengths), is_held_out, held_out_pairs, used, rng)
            if split == _LONG_VIDEOS:
                used.update((scene,) for scene in scenes)
            elif split != "train":
                used.add(scenes)
            yield _VideoPlan(
                split,
                video_id,
                tuple(zip(scenes, lengths, strict=True)),
                "held_out" if is_held_out else "seen",
            )


def _clip_lengths(settings: _Settings, rng: random.Random) -> list[int]:
    """Draw the frames of each scene; a two-scene clip is cut in the middle, so that each half gets
    half of uniformly sampled frames, also with jitter."""
    frames = round(settings.clip_s * settings.fps)
    if rng.random() < _TWO_SCENE_SHARE:
        return [frames // 2, frames - frames // 2]
    return [frames]


def _video_lengths(settings: _Settings, rng: random.Random) -> list[int]:
    shortest_s, longest_s = (settings.clip_s * length for length in _VIDEO_LENGTH_RANGE)
    while True:
        lengths_s = [
            settings.clip_s * rng.uniform(*_SCENE_LENGTH_RANGE) for _ in range(rng.randint(3, 5))
        ]
        lengths = [round(length_s * settings.fps) for length_s in lengths_s]
        if shortest_s <= sum(lengths) / settings.fps <= longest_s:
            return lengths


def _draw_scenes(
    count: int,
    is_held_out: bool,
    held_out_pairs: Pairs,
    used: set[tuple[Scene, ...]],
    rng: random.Random,
) -> tuple[Scene, ...]:
    """Draw `count` scenes, neighbours in different places, with or without held-out pairs."""
    for _ in range(10_000):
        scenes = tuple(_draw_scene(rng) for _ in range(count))
        if any(_has_held_out_pair(scene, held_out_pairs) for scene in scenes) is not is_held_out:
            continue
        # A sentence about two relations would be too long.
        if count == 2 and sum(scene.relation is not None for scene in scenes) > 1:
            continue
        if any(a.place == b.place for a, b in pairwise(scenes)):
            continue
        if scenes not in used:
            return scenes
    raise AtomError(
        "dataset: no unused scene is left; lower dataset.test or dataset.validation, or "
        "change dataset.held_out_share"
    )


def _draw_scene(rng: random.Random) -> Scene:
    """Draw a scene whose things contrast with the place."""
    place = rng.choice(PLACES)
    visible = [colour for colour in COLOURS if (colour, place) not in INVISIBLE]
    if rng.random() < _RELATION_SHARE:
        relation = rng.choice(RELATIONS)
        (first, second), (colour, other) = rng.sample(OBJECTS, 2), rng.sample(visible, 2)
        motion = rng.choice(RELATION_MOTIONS[relation])
        return Scene(place, first, colour, 1, motion, relation, second, other)
    count = rng.choice((1, 1, 2, 3))
    return Scene(place, rng.choice(OBJECTS), rng.choice(visible), count, rng.choice(MOTIONS))
