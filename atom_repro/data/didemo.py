"""DiDeMo: Flickr videos with one to seven sentences, each about a moment of its video.

Splits `train`, `validation`, `test` have one query per sentence; `validation-paragraph` and
`test-paragraph` have one query per video, all of its sentences joined in the file's order, the
papers' DiDeMo retrieval task. Videos are matched by the name without its extension: the test
file has 1,037 names for 1,004 videos, and matching full names loses 89 sentences or yields a
gallery that no paper uses.
"""

from atom_repro.data.annotations import (
    AnnotatedDataset,
    SourceFile,
    clean,
    field,
    read_json,
)
from atom_repro.datatypes import AtomError, Clip, Query
from atom_repro.video.folder import stem, validated_video_id

_ANNOTATIONS_SOURCE = "in the GitHub repository LisaAnne/LocalizingMoments under data/"
_SHORT_NAMES = {"train": "train", "validation": "val", "test": "test"}
_CHECKSUMS = {
    "train": (),
    "val": ("b0364cc256553332feb19d46bcc4cd2b09774949fe6c0b25e7ed0ff3c6aefebb",),
    "test": ("1891c04ec48b3d364c739594b2b6413806b74bd9027c092d896e7ebb930ff1cd",),
}
SOURCES = {
    split: SourceFile(
        (f"{short}_data.json", f"didemo_{short}_data.json"),
        f"the {split} split",
        _ANNOTATIONS_SOURCE,
        _CHECKSUMS[short],
    )
    for split, short in _SHORT_NAMES.items()
}
_PARAGRAPH = "-paragraph"


class Didemo(AnnotatedDataset):
    """DiDeMo with sentence and paragraph splits; created by `build`."""

    name = "didemo"
    splits = (
        *_SHORT_NAMES,
        *(f"{split}{_PARAGRAPH}" for split in _SHORT_NAMES),
    )
    files = (SOURCES["test"], SOURCES["validation"], SOURCES["train"])
    videos_source = "the download scripts of the GitHub repository LisaAnne/LocalizingMoments"

    def _load(self, split: str) -> list[Clip]:
        base_split = split.removesuffix(_PARAGRAPH)
        path = SOURCES[base_split].require(self.annotations)
        rows = read_json(path)
        if not isinstance(rows, list):
            raise AtomError(f"{path}: not a list of sentences")
        queries_by_video: dict[str, list[Query]] = {}
        segments: dict[str, int] = {}
        seen_ids: set[str] = set()
        for number, row in enumerate(rows):
            where = f"{path}: entry {number}"
            name = validated_video_id(field(row, "video", where), where)
            query_id = str(field(row, "annotation_id", where))
            if query_id in seen_ids:
                raise AtomError(f"{where}: annotation_id {query_id} occurs twice")
            seen_ids.add(query_id)
            video_id = stem(name) if "." in name else name
            text = clean(field(row, "description", where), where)
            queries_by_video.setdefault(video_id, []).append(Query(query_id, text))
            segments[video_id] = int(row.get("num_segments", 0))
        return [
            Clip(
                dataset=self.name,
                split=split,
                video_id=video_id,
                path=self.videos.path(video_id),
                source_id=_flickr_number(video_id),
                references=tuple(q.text for q in sentences),
                queries=(
                    (Query(video_id, " ".join(q.text for q in sentences), "paragraph"),)
                    if split.endswith(_PARAGRAPH)
                    else tuple(sentences)
                ),
                meta={"segments": segments[video_id]},
            )
            for video_id, sentences in queries_by_video.items()
        ]


def _flickr_number(video_id: str) -> str:
    """Flickr's number of a video id `<user>_<number>_<secret>`."""
    parts = video_id.split("_")
    return parts[-2] if len(parts) >= 3 else video_id


def build(*, annotations: str, videos: str) -> Didemo:
    """Create the data set; no file is read yet.

    Args:
        annotations: folder with `test_data.json` and the others.
        videos: folder of the videos, with any known extension.
    """
    return Didemo(annotations, videos)
