"""Protocols: counts are asserted, and configuration builds what it says."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from atom_repro.data import protocol
from atom_repro.data.toy import dataset as toy
from atom_repro.datatypes import AtomError, Clip, Query

CONF = Path(__file__).parents[2] / "conf"


class Source:
    name = "toy"

    def __init__(self, clips: list[Clip]) -> None:
        self._clips = clips

    def clips(self, split: str) -> list[Clip]:
        return [clip for clip in self._clips if clip.split == split]


def clip(i: int, **changed) -> Clip:
    made = Clip(
        dataset="toy",
        split="test",
        video_id=f"v{i}",
        path=Path(f"v{i}.mp4"),
        references=("a", "b"),
        queries=(Query(f"v{i}-q0", "c"),),
    )
    return replace(made, **changed)


def ask(**changed) -> protocol.EvaluationProtocol:
    settings = {
        "name": "toy/caption",
        "dataset": "toy",
        "split": "test",
        "videos": 3,
        "captions": 6,
        "captions_per_video": 2,
        "queries": 3,
        "query_kind": "sentence",
    }
    return protocol.build(**(settings | changed))


def test_clips_that_fit_are_given_in_order():
    clips = [clip(2), clip(0), clip(1), clip(9, split="train")]
    assert ask().select(Source(clips)) == clips[:3]
    loose = ask(videos=-1, captions=-1, captions_per_video=-1, queries=-1)
    assert loose.select(Source(clips[:1])) == clips[:1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"videos": 4}, r"toy/caption expects 4 videos in toy/test, found 3"),
        ({"captions": 60}, r"toy/caption expects 60 captions .* found 6"),
        ({"captions_per_video": 5}, r"expects 5 captions a video, found 2 for v0"),
        ({"queries": 9}, r"expects 9 queries .* found 3"),
        ({"queries": 0}, r"expects 0 queries .* found 3"),
        ({"query_kind": "paragraph"}, r"expects paragraph queries, found sentence for v0"),
        ({"dataset": "msvd"}, r"about the data set msvd, not toy"),
    ],
)
def test_what_does_not_fit_is_said(changed, message):
    with pytest.raises(AtomError, match=message):
        ask(**changed).select(Source([clip(i) for i in range(3)]))


def test_a_video_standing_twice_is_refused():
    clips = [clip(0), clip(0), clip(1), clip(2)]
    with pytest.raises(AtomError, match="v0 occurs twice"):
        ask(captions=8, queries=4).select(Source(clips))


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"query_kind": "word"}, "protocol.query_kind=word"), ({"videos": -2}, "protocol.videos=-2")],
)
def test_bad_settings_are_named(changed, message):
    with pytest.raises(AtomError, match=message):
        ask(**changed)


@pytest.mark.parametrize(
    ("file", "builder"),
    [
        ("protocol/toy_caption.yaml", protocol.build),
        ("protocol/toy_retrieval.yaml", protocol.build),
        ("dataset/toy.yaml", toy.build),
    ],
)
def test_configuration_names_every_argument(file, builder):
    content = yaml.safe_load((CONF / file).read_text())
    assert content.pop("_target_") == f"{builder.__module__}.build"
    assert set(content) == set(inspect.signature(builder).parameters)


def test_the_toy_protocols_fit_the_toy_data_set(tmp_path):
    settings = yaml.safe_load((CONF / "dataset/toy.yaml").read_text())
    del settings["_target_"]
    settings |= {"root": str(tmp_path), "train": 0, "validation": 0, "test": 6, "long_videos": 0}
    dataset = toy.build(**settings)
    dataset.prepare()
    for file in ("toy_caption", "toy_retrieval"):
        content = yaml.safe_load((CONF / f"protocol/{file}.yaml").read_text())
        del content["_target_"]
        counts = {key: 6 for key, value in content.items() if value == "${scale.test_clips}"}
        assert counts
        assert len(protocol.build(**(content | counts)).select(dataset)) == 6
