"""MSVD: 1,970 short clips with 80,827 captions (1,200 / 100 / 670 clips).

Two of the formats in circulation are read: `sents_<split>_lc_nopunc.txt` (id, tab, sentence) with
`youtube_mapping.txt`, and the corpus file `AllVideoDescriptions.txt` with split lists. The pickle
of some repositories is not read, as unpickling can run code. Ids are
`<YouTube id>_<start>_<end>`; video files may be named by them or by numbers such as `vid1301`.
"""

from pathlib import Path

from atom_repro.data.annotations import (
    AnnotatedDataset,
    SourceFile,
    clean,
    read_lines,
    require_unique,
)
from atom_repro.datatypes import AtomError, Clip, Query
from atom_repro.video.folder import validated_video_id

_SHORT_NAMES = {"train": "train", "validation": "val", "test": "test"}
_CAPTIONS_SOURCE = (
    "the caption files are in the GitHub repository nasib-ullah/video-captioning-models-in-Pytorch "
    "under MSVD/captions/"
)
_CHECKSUMS = {
    "train": "eae94f08e0794d9b175569ef7bc973ae2899d09ffe3afa2bf63bd61a0116b395",
    "val": "d23341ce336946aafeef76534a029db88294ee7c09ff4da09188ef8d5ab09089",
    "test": "fb760644526197e5bc7cc9888169b63558655794f381c8599ee04e1c6e63cee2",
}
SENTENCES = {
    split: SourceFile(
        (f"sents_{short}_lc_nopunc.txt", f"msvd_sents_{short}_lc_nopunc.txt"),
        f"the {split} split",
        _CAPTIONS_SOURCE,
        (_CHECKSUMS[short],),
    )
    for split, short in _SHORT_NAMES.items()
}
MAPPING = SourceFile(
    ("youtube_mapping.txt", "msvd_youtube_mapping.txt"),
    "the ids of the caption files",
    _CAPTIONS_SOURCE,
    ("32dce93ef98a629feb74057fa7317c7e000ba4f98b6c0839088210eb69900ac8",),
)
CORPUS = SourceFile(
    ("AllVideoDescriptions.txt",),
    "all splits, in place of the sents files",
    "it comes with the MSVD corpus (www.cs.utexas.edu/users/ml/clamp/videoDescription)",
)
LISTS = {
    split: SourceFile(
        (f"{short}_list.txt", f"msvd_{short}_list.txt"),
        f"the {split} split of AllVideoDescriptions.txt",
        "in the GitHub repository albanie/collaborative-experts under misc/datasets/msvd/",
    )
    for split, short in _SHORT_NAMES.items()
}


class Msvd(AnnotatedDataset):
    """MSVD in either of its formats; created by `build`."""

    name = "msvd"
    splits = ("train", "validation", "test")
    files = (
        SENTENCES["test"],
        SENTENCES["train"],
        SENTENCES["validation"],
        MAPPING,
        CORPUS,
        *LISTS.values(),
    )
    videos_source = "www.cs.utexas.edu/users/ml/clamp/videoDescription/YouTubeClips.tar"

    def _load(self, split: str) -> list[Clip]:
        corpus = CORPUS.find(self.annotations)
        if corpus is not None and SENTENCES[split].find(self.annotations) is None:
            captions = self._from_corpus(corpus, LISTS[split].require(self.annotations))
            numbers: dict[str, str] = {}
        else:
            captions, numbers = self._from_sentences(SENTENCES[split].require(self.annotations))
        return [self._clip(v, texts, split, numbers) for v, texts in captions.items()]

    def _from_sentences(self, path: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
        """Captions by YouTube id, and the `vid<number>` name of each id."""
        mapping_path = MAPPING.require(self.annotations)
        pairs = [(where, line.split()) for where, line in read_lines(mapping_path)]
        for where, parts in pairs:
            if len(parts) != 2:
                raise AtomError(f"{where}: not `<YouTube id> <number>`")
        require_unique((parts[1] for _, parts in pairs), str(mapping_path))
        names = {number: validated_video_id(name, where) for where, (name, number) in pairs}
        require_unique(names.values(), str(mapping_path))
        captions: dict[str, list[str]] = {}
        for where, line in read_lines(path):
            number, tab, sentence = line.partition("\t")
            if not tab:
                raise AtomError(f"{where}: not `<number><tab><sentence>`")
            if number not in names:
                raise AtomError(f"{where}: {number} is not in {mapping_path}")
            captions.setdefault(names[number], []).append(clean(sentence, where))
        return captions, {name: number for number, name in names.items()}

    def _from_corpus(self, path: Path, split_list: Path) -> dict[str, list[str]]:
        ids = require_unique((line.strip() for _, line in read_lines(split_list)), str(split_list))
        captions: dict[str, list[str]] = {validated_video_id(v, str(split_list)): [] for v in ids}
        for where, line in read_lines(path):
            video_id, _, sentence = line.strip().partition(" ")
            if line.startswith("#") or video_id not in captions:
                continue  # a licence header, or another split's clip
            captions[video_id].append(clean(sentence, where))
        without_caption = [v for v, texts in captions.items() if not texts]
        if without_caption:
            raise AtomError(
                f"{path}: has no caption of {without_caption[0]}, which {split_list} names"
            )
        return captions

    def _clip(
        self, video_id: str, captions: list[str], split: str, numbers: dict[str, str]
    ) -> Clip:
        source, *times = video_id.rsplit("_", 2)
        names = (video_id, numbers[video_id]) if video_id in numbers else (video_id,)
        return Clip(
            dataset=self.name,
            split=split,
            video_id=video_id,
            path=self.videos.path(*names),
            source_id=source,
            references=tuple(captions),
            queries=tuple(Query(f"{video_id}#{i}", text) for i, text in enumerate(captions)),
            meta={"source_times_s": times},  # the files are already cut
        )


def build(*, annotations: str, videos: str) -> Msvd:
    """Create the data set; no file is read yet.

    Args:
        annotations: folder of the caption files.
        videos: folder of the videos.
    """
    return Msvd(annotations, videos)
