"""MSR-VTT from its official annotation files: 10,000 clips with 20 captions each.

Splits: `train`, `validation`, `test` are the official ones (6,513 / 497 / 2,990), where every
caption is a reference and a query; `train-7k` and `train-9k` are the lists that retrieval papers
train on; `test-1ka` is the 1k-A (JSFusion) test: 1,000 test clips with one fixed sentence each.
`train-9k` holds 1,990 of the official test's clips, so `test` is refused after training on it.
"""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from atom_repro.data.annotations import (
    AnnotatedDataset,
    SourceFile,
    clean,
    field,
    read_json,
    read_text,
    require_unique,
)
from atom_repro.datatypes import AtomError, Clip, Query
from atom_repro.video.folder import validated_video_id

_VIDEOS_SOURCE = (
    "www.robots.ox.ac.uk/~maxbain/frozen-in-time/data/MSRVTT.zip (videos and annotations)"
)
TEST = SourceFile(
    (
        "test_videodatainfo.json",
        "test_videodatainfo.json.zip",
        "msrvtt_test_videodatainfo.json.zip",
    ),
    "the test split",
    "test_videodatainfo.json of the MSR-VTT challenge; a copy is in the GitHub repository "
    "WingsBrokenAngel/MSR-VTT-DataCleaning under clean_process/",
    ("0871bbe19dc9c13edeef4af5d7be39600a2e2b7d967e0206bb5911d633af24a0",),
)
TRAIN = SourceFile(
    (
        "train_val_videodatainfo.json",
        "train_val_annotation.zip",
        "msrvtt_train_val_annotation.zip",
    ),
    "the train and validation splits",
    "train_val_videodatainfo.json of the MSR-VTT challenge; a copy is in the GitHub repository "
    "WingsBrokenAngel/MSR-VTT-DataCleaning under clean_process/",
    ("ce2d97dd82d03e018c6f9ee69c96eb784397d1c83f734fdb8c17aafa5e27da31",),
)
_LISTS_SOURCE = "in the GitHub repository ArrowLuo/CLIP4Clip's release msrvtt_data.zip"
TEST_1KA = SourceFile(
    ("MSRVTT_JSFUSION_test.csv",),
    "the 1k-A test",
    _LISTS_SOURCE,
    ("e61144b312c8a2fc2126f96504c981f8c23c05b3ba9655a56e2af50ac8a4b16a",),
)
LIST_7K = SourceFile(
    ("MSRVTT_train.7k.csv",),
    "train-7k",
    _LISTS_SOURCE,
    ("ca0d04c34310168b620c90c67eaec702b37398943965f5e1f9f44af8f193da7d",),
)
LIST_9K = SourceFile(
    ("MSRVTT_train.9k.csv",),
    "train-9k",
    _LISTS_SOURCE,
    ("0a7ece2418e1f7ac5680555a04ddfef8950293ac3c4bdd6584fb0fa6cc0ff7d3",),
)
_LISTS = {"train-7k": LIST_7K, "train-9k": LIST_9K}
_OFFICIAL_SPLITS = {
    "train": "train",
    "validate": "validation",
    "validation": "validation",
    "test": "test",
}


class MsrVtt(AnnotatedDataset):
    """MSR-VTT with the splits of the module's docstring; created by `build`."""

    name = "msrvtt"
    splits = ("train", "validation", "test", "test-1ka", "train-7k", "train-9k")
    files = (TEST, TRAIN, TEST_1KA, LIST_7K, LIST_9K)
    videos_source = _VIDEOS_SOURCE

    def __init__(self, annotations: str, videos: str, train: str) -> None:
        super().__init__(annotations, videos)
        self.train = train
        self._clips_by_file: dict[str, list[Clip]] = {}

    def _load(self, split: str) -> list[Clip]:
        if split == "train" and self.train != "official":
            split = f"train-{self.train}"
        if split == "test" and self.train == "9k":
            raise AtomError(
                "dataset.train=9k trains on 1,990 of the official test's videos, so the split test "
                "is not held out; use protocol=msrvtt_ret_1ka, or dataset.train=official"
            )
        if split == "test-1ka":
            return self._test_1ka()
        if split in _LISTS:
            return self._training_list(_LISTS[split].require(self.annotations))
        return self._official_clips(TEST if split == "test" else TRAIN)[split]

    def _official_clips(self, source: SourceFile) -> dict[str, list[Clip]]:
        path = source.require(self.annotations)
        if path.name not in self._clips_by_file:
            self._clips_by_file[path.name] = self._read_official(path)
        by_split: dict[str, list[Clip]] = {"train": [], "validation": [], "test": []}
        for clip in self._clips_by_file[path.name]:
            by_split[clip.split].append(clip)
        return by_split

    def _read_official(self, path: Path) -> list[Clip]:
        content = read_json(path)
        videos = field(content, "videos", str(path))
        sentences = field(content, "sentences", str(path))
        require_unique(
            (str(field(v, "video_id", f"{path}: videos")) for v in videos), f"{path}: video_id"
        )
        require_unique(
            (str(field(s, "sen_id", f"{path}: sentences")) for s in sentences), f"{path}: sen_id"
        )
        queries_by_video: dict[str, list[Query]] = {str(v["video_id"]): [] for v in videos}
        for s in sentences:
            where = f"{path}: sentence {s['sen_id']}"
            video_id = str(field(s, "video_id", where))
            if video_id not in queries_by_video:
                raise AtomError(f"{where}: is about {video_id}, which is not in the file")
            queries_by_video[video_id].append(
                Query(str(s["sen_id"]), clean(field(s, "caption", where), where))
            )
        return [self._clip(v, queries_by_video[str(v["video_id"])], path) for v in videos]

    def _clip(self, video: dict[str, Any], queries: list[Query], path: Path) -> Clip:
        where = f"{path}: video {video['video_id']}"
        video_id = validated_video_id(video["video_id"], where)
        split = str(field(video, "split", where))
        if split not in _OFFICIAL_SPLITS:
            raise AtomError(f"{where}: split {split!r} is none of {tuple(_OFFICIAL_SPLITS)}")
        if not queries:
            raise AtomError(f"{where}: has no caption")
        return Clip(
            dataset=self.name,
            split=_OFFICIAL_SPLITS[split],
            video_id=video_id,
            path=self.videos.path(video_id),
            source_id=str(video.get("url", "")),
            references=tuple(q.text for q in queries),
            queries=tuple(queries),
            # The published files are already cut; the times are those in the source.
            meta={
                "category": video.get("category"),
                "source_start_s": video.get("start time"),
                "source_end_s": video.get("end time"),
                "official_split": _OFFICIAL_SPLITS[split],
            },
        )

    def _test_1ka(self) -> list[Clip]:
        """Clips of the 1k-A test, in the CSV's order.

        They are matched by id, as 12 sentences lost their punctuation."""
        path = TEST_1KA.require(self.annotations)
        test = {c.video_id: c for c in self._official_clips(TEST)["test"]}
        rows = _read_csv(path)
        require_unique((row.get("video_id", "") for row in rows), f"{path}: video_id")
        clips = []
        for number, row in enumerate(rows, 2):
            where = f"{path}:{number}"
            video_id, key = field(row, "video_id", where), field(row, "key", where)
            if video_id not in test:
                raise AtomError(f"{where}: {video_id} is not in the official test split")
            query = Query(str(key), clean(field(row, "sentence", where), where))
            clip = test[video_id]
            clips.append(replace(clip, split="test-1ka", queries=(query,)))
        return clips

    def _training_list(self, path: Path) -> list[Clip]:
        """Clips of a training list, which may come from any official split."""
        ids = require_unique(
            (row.get("video_id", "") for row in _read_csv(path)), f"{path}: video_id"
        )
        official_clips = {
            c.video_id: c
            for source in (TRAIN, TEST)
            for clips in self._official_clips(source).values()
            for c in clips
        }
        missing = [i for i in ids if i not in official_clips]
        if missing:
            raise AtomError(f"{path}: {missing[0]} is in no official split")
        return [
            replace(official_clips[i], split=f"train-{path.stem[-2:]}", queries=()) for i in ids
        ]


def _read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV with a header, separated by commas or, in one published copy, semicolons."""
    text = read_text(path)
    header = text.split("\n", 1)[0]
    delimiter = ";" if header.count(";") > header.count(",") else ","
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


def build(*, annotations: str, videos: str, train: str) -> MsrVtt:
    """Create the data set; no file is read yet.

    Args:
        annotations: folder of the annotation files, see `TEST` and the others.
        videos: folder of the videos, `video7010.mp4` and so on, at any depth.
        train: the list that serves as split `train`: `official`, `7k` or `9k`.

    Raises:
        AtomError: an unknown `train`.
    """
    if train not in ("official", "7k", "9k"):
        raise AtomError(f"dataset.train={train}: choose official, 7k or 9k")
    return MsrVtt(annotations, videos, train)
