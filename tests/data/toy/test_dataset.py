"""The generated data set: the same bytes again, splits that do not leak, work taken up again."""

import itertools
import json
import os

import numpy as np
import pytest

from atom_repro.data.toy import dataset as toy
from atom_repro.data.toy.grammar import MAX_WORDS, attributes_in, attributes_of
from atom_repro.data.toy.world import INVISIBLE, Scene
from atom_repro.datatypes import AtomError
from atom_repro.video.sampling import read_frames

SMALL = {
    "seed": 3,
    "train": 24,
    "validation": 8,
    "test": 16,
    "held_out_share": 0.12,
    "long_videos": 2,
    "size": 32,
    "fps": 3,
    "clip_s": 10.0,
}


def made(root, **changed) -> toy.ToyDataset:
    return toy.build(root=str(root), **(SMALL | changed))


def scenes_of(clip) -> list[Scene]:
    return [Scene.from_meta(entry) for entry in clip.meta["scenes"]]


def pairs_of(clip) -> set[tuple[str, str]]:
    return {
        pair
        for scene in scenes_of(clip)
        for colour, thing in scene.things
        for pair in ((colour, thing), (thing, scene.motion))
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> toy.ToyDataset:
    dataset = made(tmp_path_factory.mktemp("toy"))
    dataset.prepare()
    return dataset


def test_the_same_seed_gives_the_same_bytes(dataset, tmp_path):
    again = made(tmp_path)
    again.prepare()
    assert again.fingerprint == dataset.fingerprint
    assert again.manifest.read_bytes() == dataset.manifest.read_bytes()
    for one, other in zip(dataset.clips("test"), again.clips("test"), strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()


def test_another_seed_gives_another_folder_and_content(dataset, tmp_path):
    other = made(tmp_path, seed=4, train=2, validation=2, test=2, long_videos=0)
    other.prepare()
    assert other.folder.name != dataset.folder.name
    assert other.clips("test")[0].references != dataset.clips("test")[0].references


def test_test_clips_do_not_depend_on_the_size_of_training(dataset, tmp_path):
    other = made(tmp_path, train=0, validation=0, long_videos=0)
    other.prepare()
    for one, more in zip(dataset.clips("test"), other.clips("test"), strict=True):
        assert (one.references, one.meta) == (more.references, more.meta)
        assert one.path.read_bytes() == more.path.read_bytes()


def test_nothing_is_made_before_prepare(tmp_path):
    dataset = made(tmp_path)
    assert list(tmp_path.iterdir()) == []
    for ask in (lambda: dataset.clips("test"), dataset.videos, lambda: dataset.fingerprint):
        with pytest.raises(AtomError, match=r"prepare\(\)"):
            ask()


def test_an_interrupted_run_is_taken_up_again(dataset, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def stop(done: int, _: int) -> None:
        if done == 10:
            raise Killed

    begun = made(tmp_path)
    with pytest.raises(Killed):
        begun.prepare(stop)
    there = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    assert 10 <= len(there) < 50
    assert not begun.manifest.exists()
    for path in there:
        os.utime(path, ns=(1, 1))

    heard = []
    begun.prepare(lambda done, total: heard.append((done, total)))
    assert heard == [(done, 50) for done in range(len(there) + 1, 51)]
    assert all(path.stat().st_mtime_ns == 1 for path in there)
    assert begun.fingerprint == dataset.fingerprint

    monkeypatch.setattr(toy, "_plan_videos", None)  # a second call must not even plan
    begun.prepare()
    made(tmp_path).prepare()


def test_a_lost_file_is_made_again(tmp_path):
    dataset = made(tmp_path, train=0, validation=0, test=4, long_videos=0)
    dataset.prepare()
    lost = dataset.clips("test")[1].path
    before = lost.read_bytes()
    lost.unlink()
    dataset.prepare()
    assert lost.read_bytes() == before


def test_clips_are_what_they_say(dataset):
    for split, count in (("train", 24), ("validation", 8), ("test", 16)):
        clips = dataset.clips(split)
        assert len(clips) == count
        for clip in clips:
            assert (clip.dataset, clip.split) == ("toy", split)
            assert len(set(clip.references)) == 5
            assert len(clip.queries) == (0 if split == "train" else 1)
            assert not {query.text for query in clip.queries} & set(clip.references)
            got = read_frames(clip.path, frames=6, size=32, sampling="centre")
            assert got.status == "ok"
            assert got.times_s[-1] == pytest.approx(9.0, abs=0.34)
            ends = [scene["end_s"] for scene in clip.meta["scenes"]]
            assert ends[-1] == pytest.approx(10.0)


def test_an_unknown_split_is_named(dataset):
    with pytest.raises(AtomError, match="'tset'"):
        dataset.clips("tset")


def test_captions_state_exactly_the_scenes(planned):
    clips = [*planned.clips("test"), *planned.clips("validation"), *planned.clips("train")]
    for clip in clips:
        truth = toy.true_attributes(clip)
        for text in (*clip.references, *(query.text for query in clip.queries)):
            assert attributes_in(text) == truth, text
            assert len(text.split()) <= MAX_WORDS


def test_held_out_pairs_are_only_in_held_out_test_clips(planned):
    held = json.loads(planned.manifest.read_text())["held_out"]
    pairs = {tuple(pair) for kind in held.values() for pair in kind}
    assert (len(held["colour_object"]), len(held["object_motion"])) == (10, 12)
    for clip in (*planned.clips("train"), *planned.clips("validation"), *planned.videos()):
        assert not pairs_of(clip) & pairs
    for clip in planned.clips("test"):
        assert bool(pairs_of(clip) & pairs) == (clip.meta["combination"] == "held_out")
    names = [clip.meta["combination"] for clip in planned.clips("test")]
    assert names == ["seen", "held_out"] * 100


def test_training_shows_every_other_pair(planned):
    held = json.loads(planned.manifest.read_text())["held_out"]
    shown = set().union(*(pairs_of(clip) for clip in planned.clips("train")))
    assert len(shown) == 80 + 100 - len(held["colour_object"]) - len(held["object_motion"])


def test_no_two_evaluation_clips_show_the_same(planned):
    evaluated = [*planned.clips("test"), *planned.clips("validation")]
    signatures = [tuple(scenes_of(clip)) for clip in evaluated]
    assert len(set(signatures)) == len(signatures)
    assert not set(signatures) & {tuple(scenes_of(clip)) for clip in planned.clips("train")}


def test_scenes_can_be_seen_and_cut(planned):
    clips = planned.clips("train")
    cut = [clip for clip in clips if len(clip.meta["scenes"]) == 2]
    assert 0.14 < len(cut) / len(clips) < 0.22
    for clip in (*clips, *planned.clips("test")):
        scenes = scenes_of(clip)
        assert all(
            (colour, scene.place) not in INVISIBLE for scene in scenes for colour, _ in scene.things
        )
        assert len({scene.place for scene in scenes}) == len(scenes)
    assert any(scenes_of(clip)[0].relation for clip in clips)


def test_meta_is_plain_json(planned):
    for clip in (*planned.clips("test"), *planned.videos()):
        assert json.loads(json.dumps(clip.meta)) == clip.meta


def test_long_videos(dataset, planned):
    for video in planned.videos():
        scenes = video.meta["scenes"]
        assert 3 <= len(scenes) <= 5
        assert scenes[0]["start_s"] == 0
        assert 30 <= scenes[-1]["end_s"] <= 60
        for scene, truth in zip(scenes, scenes_of(video), strict=True):
            assert scene["end_s"] - scene["start_s"] >= 7.9
            assert len(scene["references"]) == 5
            assert all(attributes_in(t) == attributes_of([truth]) for t in scene["references"])
        for before, after in itertools.pairwise(scenes):
            assert before["end_s"] == after["start_s"]
            assert before["place"] != after["place"]
    for video in dataset.videos():
        # The picture changes at a true boundary, and nowhere near as much beside it.
        cut_s = video.meta["scenes"][1]["start_s"]
        got = read_frames(
            video.path, frames=12, size=32, sampling="centre", start_s=cut_s - 2, end_s=cut_s + 2
        )
        change = np.abs(np.diff(got.pixels.astype(int), axis=0)).mean(axis=(1, 2, 3))
        assert change.argmax() == 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train": -1}, "dataset.train=-1"),
        ({"size": 33}, "dataset.size=33"),
        ({"held_out_share": 0.0}, "dataset.held_out_share=0.0"),
        ({"fps": 1}, "dataset.fps=1"),
    ],
)
def test_bad_settings_are_named(tmp_path, changed, message):
    with pytest.raises(AtomError, match=message):
        made(tmp_path, **changed)
