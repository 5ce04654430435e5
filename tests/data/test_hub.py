"""Hub data sets through a local folder: column maps, and one line where the hub does not answer."""

import json
from pathlib import Path

import pytest

from atom_repro.data import hub
from atom_repro.datatypes import AtomError

COLUMNS = {"video_id": "video", "captions": "caption", "query": "", "source_id": ""}


def write(folder: Path, rows) -> Path:
    folder.mkdir(exist_ok=True)
    text = "\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n"
    (folder / "test.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def made(folder: Path, columns=None, **changes) -> hub.HubDataset:
    settings = {
        "name": "msrvtt",
        "hub_id": str(folder),
        "revision": "",
        "splits": {"test-1ka": "test"},
        "columns": COLUMNS | (columns or {}),
        "query_kind": "sentence",
        "videos": str(folder / "videos"),
    }
    return hub.build(**(settings | changes))


def test_a_column_map_makes_clips(tmp_path):
    folder = write(
        tmp_path / "a",
        [
            {"video": "video9.mp4", "caption": ["a cat", "кот\u2028 спит"], "s": "u1", "q": "cats"},
            {"video": "video7.mp4", "caption": ["a dog"], "s": "u2", "q": "dogs"},
        ],
    )
    clips = made(folder, {"query": "q", "source_id": "s"}).clips("test-1ka")
    assert [(c.video_id, c.source_id, c.references) for c in clips] == [
        ("video9", "u1", ("a cat", "кот спит")),
        ("video7", "u2", ("a dog",)),
    ]
    assert [q.text for c in clips for q in c.queries] == ["cats", "dogs"]
    assert clips[0].path == folder / "videos/video9.mp4"


def test_one_caption_a_row_is_gathered_by_video(tmp_path):
    rows = [{"video": "v1", "caption": t} for t in ("a", "b")] + [{"video": "v2", "caption": "c"}]
    clips = made(write(tmp_path / "b", rows)).clips("test-1ka")
    assert [(c.references, len(c.queries)) for c in clips] == [(("a", "b"), 2), (("c",), 1)]


def test_video_columns_are_not_decoded(tmp_path):
    import datasets

    features = datasets.Features(
        {
            "video": datasets.Value("string"),
            "caption": datasets.Value("string"),
            "clip": datasets.Video(),
        }
    )
    table = datasets.Dataset.from_dict(
        {"video": ["v1"], "caption": ["a cat"], "clip": [{"path": None, "bytes": b"no video"}]},
        features=features,
    )
    (tmp_path / "c").mkdir()
    table.to_parquet(tmp_path / "c/test.parquet")
    assert made(tmp_path / "c").clips("test-1ka")[0].references == ("a cat",)


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        (
            [{"video": "v", "caption": "x"}],
            {"captions": "text"},
            "no column 'text'.*dataset.columns",
        ),
        ([{"video": "v", "caption": " "}], {}, "row 0: not a non-empty text"),
        ([{"video": "../v", "caption": "x"}], {}, "cannot be a video id"),
    ],
)
def test_bad_rows_are_one_line(tmp_path, rows, columns, said):
    with pytest.raises(AtomError, match=said):
        made(write(tmp_path / "d", rows), columns).clips("test-1ka")


def test_a_hub_that_does_not_answer_names_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(AtomError, match=r"cannot be loaded.*make data-check") as caught:
        made(tmp_path, hub_id="nobody/no-such-data").prepare()
    assert "\n" not in str(caught.value)


def test_bad_settings(tmp_path):
    with pytest.raises(AtomError, match="has no 'title'"):
        made(tmp_path, {"title": "x"})
    with pytest.raises(AtomError, match="must name a column for video_id"):
        made(tmp_path, {"captions": ""})
    with pytest.raises(AtomError, match="choose sentence or paragraph"):
        made(tmp_path, query_kind="word")
    with pytest.raises(AtomError, match="no split 'train'"):
        made(tmp_path).clips("train")
