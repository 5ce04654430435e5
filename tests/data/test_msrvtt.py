"""MSR-VTT: published counts, the traps of its lists, and files that are not what they should be."""

import json
import zipfile
from pathlib import Path

import pytest

from atom_repro import config
from atom_repro.data import msrvtt
from atom_repro.data.annotations import count_leaks, read_text
from atom_repro.data.msrvtt import MsrVtt
from atom_repro.datatypes import AtomError
from atom_repro.video.sampling import check_clips

REAL = Path(__file__).parents[2] / "../shared/data/msrvtt"
VIDEOS = Path(__file__).parents[2] / "../shared/data/videos"


def video(number, split, url="u"):
    return {"video_id": f"video{number}", "category": 1, "url": f"{url}{number}", "split": split}


def sentence(number, video_number, text):
    return {"sen_id": number, "video_id": f"video{video_number}", "caption": text}


def content(**changes):
    videos = [video(7, "test"), video(9, "test"), video(8, "test", url="http://a/")]
    sentences = [
        sentence(0, 7, "a cat"), sentence(1, 9, "a dog"), sentence(2, 7, "a cat sleeps"),
        sentence(3, 8, "ein Hund, русский 中文"), sentence(4, 8, "two\u2028lines\r and\x0b more"),
    ]  # fmt: skip
    return {"info": {}, "videos": videos, "sentences": sentences} | changes


def made(folder: Path, test=None, train=None, **settings) -> MsrVtt:
    text = test if isinstance(test, str) else json.dumps(test or content())
    (folder / "test_videodatainfo.json").write_text(text, encoding="utf-8")
    if train:
        (folder / "train_val_videodatainfo.json").write_text(json.dumps(train))
    return msrvtt.build(
        annotations=str(folder), videos=str(folder / "videos"), **({"train": "official"} | settings)
    )


def protocol(name):
    return config.build(config.compose("caption", [f"protocol={name}"]).protocol)


def real(**settings) -> MsrVtt:
    if not REAL.is_dir():
        pytest.skip(f"no MSR-VTT annotations at {REAL}")
    return msrvtt.build(
        annotations=str(REAL), videos="/nowhere", **({"train": "official"} | settings)
    )


def test_clips_keep_the_files_order_and_every_caption(tmp_path):
    clips = made(tmp_path).clips("test")
    assert [c.video_id for c in clips] == ["video7", "video9", "video8"]
    assert clips[0].references == ("a cat", "a cat sleeps")
    assert [(q.query_id, q.text) for q in clips[0].queries] == [
        ("0", "a cat"),
        ("2", "a cat sleeps"),
    ]
    assert clips[2].source_id == "http://a/8"


def test_line_separators_become_spaces_and_other_scripts_stay(tmp_path):
    assert made(tmp_path).clips("test")[2].references == (
        "ein Hund, русский 中文",
        "two lines and more",
    )


def test_a_zip_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("atom_repro.data.annotations._MOST_UNZIPPED", 99)
    with zipfile.ZipFile(tmp_path / "a.json.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", " " * 100)
    with pytest.raises(AtomError, match=r"a\.json\.zip: unpacks to 100 bytes, more than 99"):
        read_text(tmp_path / "a.json.zip")


def test_a_zip_is_read_like_the_file_in_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "test_videodatainfo.json.zip", "w") as archive:
        archive.writestr("test_videodatainfo.json", json.dumps(content()))
        archive.writestr("readme.txt", "x")
    dataset = msrvtt.build(annotations=str(tmp_path), videos="/nowhere", train="official")
    assert len(dataset.clips("test")) == 3
    (tmp_path / "test_videodatainfo.json.zip").write_bytes(b"not a zip")
    again = msrvtt.build(annotations=str(tmp_path), videos="/nowhere", train="official")
    with pytest.raises(AtomError, match=r"json\.zip: cannot be read .*fetch it again"):
        again.clips("test")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (content(videos=[video(7, "test"), video(7, "test")]), "video_id: video7 occurs twice"),
        (
            content(sentences=[sentence(1, 7, "a"), sentence(1, 9, "b")]),
            "sen_id: 1 occurs twice",
        ),
        (content(sentences=[sentence(0, 5, "a cat")]), "video5, which is not in the file"),
        (content(sentences=[sentence(0, 7, "a cat")]), "video video9: has no caption"),
        (content(sentences=[sentence(0, 7, " \u2028 ")]), "sentence 0: not a non-empty text"),
        (content(videos=[video(7, "tset")]), "is not in the file|'tset' is none of"),
        (content(videos=[{**video(7, "test"), "video_id": "../etc/passwd"}], sentences=[
            {**sentence(0, 7, "x"), "video_id": "../etc/passwd"}]), "cannot be a video id"),
        ({"videos": []}, "no 'sentences'"),
        ('{"videos": [', "broken JSON"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line(tmp_path, bad, said):
    with pytest.raises(AtomError, match=said) as caught:
        made(tmp_path, bad).clips("test")
    assert "\n" not in str(caught.value) and "test_videodatainfo.json" in str(caught.value)


def test_unknown_splits_and_settings_and_missing_files(tmp_path):
    dataset = made(tmp_path)
    with pytest.raises(AtomError, match="no split 'tets'"):
        dataset.clips("tets")
    with pytest.raises(AtomError, match=r"train_val_videodatainfo\.json: not there.*train and"):
        dataset.clips("train")
    with pytest.raises(AtomError, match="choose official, 7k or 9k"):
        made(tmp_path, train="8k") if False else msrvtt.build(annotations="", videos="", train="8k")
    with pytest.raises(AtomError, match="not there, needed for the test split"):
        msrvtt.build(annotations=str(tmp_path / "no"), videos="", train="official").prepare()


def test_1ka_is_matched_by_id_whatever_its_separator(tmp_path):
    dataset = made(tmp_path)
    rows = (
        "key;vid_key;video_id;sentence\r\nret0;msr9;video9;a dog, or not\r\nret1;msr7;video7;x\r\n"
    )
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_bytes(rows.encode())
    clips = dataset.clips("test-1ka")
    assert [(c.video_id, c.queries[0].query_id, c.queries[0].text) for c in clips] == [
        ("video9", "ret0", "a dog, or not"),
        ("video7", "ret1", "x"),
    ]
    assert clips[0].references == ("a dog",)
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text(
        "key,vid_key,video_id,sentence\nr,m,video5,x\n"
    )
    with pytest.raises(AtomError, match="video5 is not in the official test"):
        made(tmp_path).clips("test-1ka")


def test_a_9k_training_refuses_the_official_test(tmp_path):
    with pytest.raises(AtomError, match="trains on 1,990 of the official test"):
        msrvtt.build(annotations=str(tmp_path), videos="", train="9k").clips("test")


def test_the_fingerprint_follows_annotations_and_videos(tmp_path):
    first = made(tmp_path).fingerprint
    assert made(tmp_path).fingerprint == first
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/video7.mp4").write_bytes(b"123")
    second = made(tmp_path).fingerprint
    (tmp_path / "test_videodatainfo.json").write_text(json.dumps(content(info={"a": 1})))
    third = msrvtt.build(
        annotations=str(tmp_path), videos=str(tmp_path / "videos"), train="official"
    ).fingerprint
    assert len({first, second, third}) == 3


def test_videos_are_found_by_stem_at_any_depth_and_case(tmp_path):
    for name in (
        "a/video7.AVI",
        "video9.mp4",
        "video9.webm",
        "video8",
        "video70.mp4",
        "._video7.mp4",
    ):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    clips = made(tmp_path).clips("test")
    found = [c.path.relative_to(tmp_path / "videos").as_posix() for c in clips]
    assert found == ["a/video7.AVI", "video9.mp4", "video8"]


def test_missing_and_broken_videos_follow_the_policy(tmp_path):
    if not VIDEOS.is_dir():
        pytest.skip(f"no sample videos at {VIDEOS}")
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "video7.mkv").symlink_to((VIDEOS / "decord_flipping_a_pancake.mkv").resolve())
    (folder / "video9.mp4").write_bytes(b"<html>404</html>")
    clips = made(tmp_path).clips("test")
    with pytest.raises(AtomError, match=r"video9 \(corrupt: .*and 1 more of 3"):
        check_clips(clips, "fail")
    counted = check_clips(clips, "count")
    assert [c.status for c in counted.clips] == ["ok", "corrupt", "missing"]
    dropped = check_clips(clips, "drop")
    assert [c.video_id for c in dropped.clips] == ["video7"]
    assert dropped.label == "reduced gallery 1/3"


# --- The real files -------------------------------------------------------------------------


def test_published_counts_hold():
    dataset = real()
    counts = {s: len(dataset.clips(s)) for s in dataset.splits}
    assert counts == {
        "train": 6513, "validation": 497, "test": 2990, "test-1ka": 1000, "train-7k": 7010,
        "train-9k": 9000,
    }  # fmt: skip
    for name, queries in (("caption_full", 59800), ("ret_1ka", 1000), ("ret_full", 59800)):
        clips = protocol(f"msrvtt_{name}").select(dataset)
        assert sum(len(c.queries) for c in clips) == queries
    assert {len(c.references) for s in ("train", "test") for c in dataset.clips(s)} == {20}


def test_the_known_leaks_are_there():
    dataset = real()
    assert count_leaks(dataset.clips("train"), dataset.clips("test")) == (0, 0)
    assert count_leaks(dataset.clips("train-9k"), dataset.clips("test")) == (1990, 372)
    assert count_leaks(dataset.clips("train-9k"), dataset.clips("test-1ka")) == (0, 372)
    assert count_leaks(dataset.clips("train-7k"), dataset.clips("test-1ka")) == (0, 0)
    inside = [c for c in dataset.clips("train-9k") if c.meta["official_split"] == "test"]
    assert len(inside) == 1990


def test_the_fixed_sentences_are_captions_but_for_punctuation():
    from atom_repro.evaluation.human_captions.text_index import normalised_text

    clips = real().clips("test-1ka")
    exact = sum(c.queries[0].text in c.references for c in clips)
    alike = sum(
        normalised_text(c.queries[0].text) in {normalised_text(r) for r in c.references}
        for c in clips
    )
    assert (exact, alike) == (988, 1000)
    assert len({c.queries[0].text for c in clips}) == 995


def test_a_prefix_is_refused_and_duplicates_are_kept():
    dataset = real()
    clips = dataset.clips("test")
    # 4,252 before white space is collapsed.
    assert sum(len(c.references) - len(set(c.references)) for c in clips) == 4256
    dataset._clips["test"] = clips[:300]
    with pytest.raises(AtomError, match="expects 2990 videos in msrvtt/test, found 300"):
        protocol("msrvtt_caption_full").select(dataset)
