"""The index: incremental, whole after a kill, of one provenance, and found to be damaged."""

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atom_repro.datatypes import AtomError, Failure, Prediction
from atom_repro.pipelines import clip_index
from atom_repro.pipelines.clip_index import ClipIndex, IndexProvenance
from atom_repro.video.file import write_video

PROVENANCE = IndexProvenance(
    model="small", weights="random", precision="fp32", prompt="", generation={"beams": 1},
    embedder="embedded",
)  # fmt: skip


class Stub:
    """A runtime that says something of each window's name, and can be told to die."""

    def __init__(self, die_at=None):
        self.asked, self.die_at = [], die_at

    def caption(self, clips):
        for clip in clips:
            if len(self.asked) == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.asked.append(clip.video_id)
            if "broken" in clip.video_id:
                yield Failure(clip.video_id, "decode_video", "broke")
            elif "silent" in clip.video_id:
                yield Prediction(clip.video_id, " ", (), -1.0)
            else:
                yield Prediction(clip.video_id, f"seen {clip.video_id}", (len(self.asked[-1]),), -2)

    def embed(self, texts, item):
        assert all(t.strip() for t in texts)
        # Like a real embedder, a vector depends a little on the batch that it was made in.
        vectors = [
            np.frombuffer(hashlib.sha256(t.encode()).digest(), np.uint8)[:8] + len(texts) * 1e-3
            for t in texts
        ]
        made = torch.tensor(np.array(vectors), dtype=torch.float32)
        return made / made.norm(dim=1, keepdim=True)


def video(path, seconds=4, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (seconds, 32, 32, 3), dtype=np.uint8)
    write_video(path, pixels, 1)


@pytest.fixture
def folder(tmp_path):
    video(tmp_path / "v/a.mp4", 4, 1)
    video(tmp_path / "v/b/a.mp4", 62, 2)  # the same stem, and more windows than a batch
    video(tmp_path / "v/c.mp4", 22, 3)
    (tmp_path / "v/torn.mp4").write_text("no video")
    (tmp_path / "v/notes.txt").write_text("no video either")
    return tmp_path / "v"


def contents(index):
    blobs = index._connection.execute("SELECT embedding FROM clips ORDER BY path, start_s")
    return index.rows(), [b for (b,) in blobs]


def test_windows_failures_and_a_second_update_that_does_nothing(tmp_path, folder):
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        told = []
        done = index.update(Stub(), folder, lambda *at: told.append(at))
        assert (done.added, done.captioned, done.failed) == (4, 17, 0)
        assert told[-1] == (17, 17)
        rows = index.rows()
        assert [(r.path, r.start_s, r.end_s) for r in rows if r.path == "c.mp4"] == [
            ("c.mp4", 0.0, 10.0), ("c.mp4", 5.0, 15.0), ("c.mp4", 10.0, 20.0),
            ("c.mp4", 15.0, 22.0),
        ]  # fmt: skip
        (torn,) = [r for r in rows if r.status == "corrupt"]
        assert torn.path == "torn.mp4"
        assert torn.detail.startswith("not a readable video")
        assert index.faults() == [f"torn.mp4: {torn.detail}"]
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        stub = Stub()
        again = index.update(stub, folder)
        assert stub.asked == []
        assert again.unchanged == 4
        assert index.rows() == rows


def test_only_new_and_changed_videos_are_captioned(tmp_path, folder):
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        index.update(Stub(), folder)
        video(folder / "d.mp4", 3, 4)
        video(folder / "c.mp4", 5, 5)
        os.utime(folder / "a.mp4", ns=(1, 1))  # touched, the same bytes
        stub = Stub()
        done = index.update(stub, folder)
        assert stub.asked == ["c.mp4@0", "d.mp4@0"]
        assert (done.added, done.changed, done.unchanged) == (1, 1, 3)
        # Footage sees the change, whatever was kept of it.
        shown = index.captioned_clips()
        assert "d.mp4" in {clip.source_id for clip in shown.clips}
        assert index.captioned_clips() is shown


def test_captions_of_what_is_away_are_kept_and_not_shown(tmp_path, folder):
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        index.update(Stub(), folder)
        rows = index.rows()
        (folder / "b").rename(tmp_path / "unplugged")
        done = index.update(Stub(), folder)
        assert (done.away, done.dropped) == (1, 0)
        assert index.rows() == rows
        assert "b/a.mp4" not in {clip.source_id for clip in index.captioned_clips().clips}
        (tmp_path / "unplugged").rename(folder / "b")
        stub = Stub()
        done = index.update(stub, folder)
        assert (stub.asked, done.away, done.unchanged) == ([], 0, 4)
        assert "b/a.mp4" in {clip.source_id for clip in index.captioned_clips().clips}


def test_what_is_away_is_dropped_where_the_user_says_so(tmp_path, folder):
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        index.update(Stub(), folder)
        (folder / "b/a.mp4").unlink()
        done = index.update(Stub(), folder, drop_missing=True)
        assert (done.away, done.dropped) == (0, 1)
        assert {r.path for r in index.rows()} == {"a.mp4", "c.mp4", "torn.mp4"}


def test_captions_follow_a_file_by_its_content(tmp_path, folder):
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        index.update(Stub(), folder)
        before = contents(index)
        (folder / "c.mp4").rename(folder / "zoo.mp4")
        shutil.copy(folder / "a.mp4", folder / "copy.mp4")
        shutil.copy(folder / "torn.mp4", folder / "torn 2.mp4")
        stub = Stub()
        done = index.update(stub, folder)
        assert (stub.asked, done.moved, done.away) == ([], 3, 0)
        captions = {(r.path, r.start_s): r.caption for r in index.rows()}
        assert ("c.mp4", 0.0) not in captions
        assert captions[("zoo.mp4", 5.0)] == "seen c.mp4@5"
        assert captions[("copy.mp4", 0.0)] == captions[("a.mp4", 0.0)]
        assert set(contents(index)[1]) == set(before[1])


def test_two_files_that_swap_their_names_swap_their_captions(tmp_path, folder):
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        index.update(Stub(), folder)
        before = {(r.path, r.start_s): r.caption for r in index.rows()}
        (folder / "a.mp4").rename(folder / "x")
        (folder / "c.mp4").rename(folder / "a.mp4")
        (folder / "x").rename(folder / "c.mp4")
        stub = Stub()
        done = index.update(stub, folder)
        assert (stub.asked, done.moved, done.away) == ([], 2, 0)
        after = {(r.path, r.start_s): r.caption for r in index.rows()}
        assert after[("a.mp4", 10.0)] == before[("c.mp4", 10.0)]
        assert after[("c.mp4", 0.0)] == before[("a.mp4", 0.0)]
        assert len(after) == len(before)


def test_a_file_that_cannot_be_read_is_named_and_the_others_go_on(tmp_path, folder, monkeypatch):
    opened = Path.open

    def locked(path, *how, **more):
        if path.name == "c.mp4":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *how, **more)

    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", locked)
            done = index.update(Stub(), folder)
            assert done.remarks == ("c.mp4: cannot be read (Permission denied)",)
            assert (done.added, done.captioned) == (3, 13)
        stub = Stub()
        index.update(stub, folder)
        assert stub.asked == [f"c.mp4@{s}" for s in (0, 5, 10, 15)]


def test_a_name_that_is_not_utf8_is_a_name(tmp_path, folder):
    (folder / "a.mp4").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9\n.mp4"))
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        index.update(Stub(), folder)
        clip = next(c for c in index.captioned_clips().clips if "caf" in c.source_id)
        assert clip.source_id == r"caf\xe9\n.mp4"
        assert clip.path.is_file()
        stub = Stub()
        assert index.update(stub, folder).unchanged == 4
        assert stub.asked == []


def test_a_second_run_is_refused_while_the_first_one_works(tmp_path, folder):
    refused = r"another run \(process \d+\) uses .*i\.db; wait for it, end it, or name another"
    with (
        ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index,
        pytest.raises(AtomError, match=refused) as caught,
    ):
        ClipIndex.open(tmp_path / "i.db", PROVENANCE)
    assert "delete" not in str(caught.value)
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        index.update(Stub(), folder)


def test_timestamps_of_years_are_one_line(tmp_path, folder, monkeypatch):
    real = clip_index.probe
    monkeypatch.setattr(
        clip_index,
        "probe",
        lambda file: replace(real(file), duration_s=9e12) if file.name == "c.mp4" else real(file),
    )
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        stub = Stub()
        index.update(stub, folder)
        assert not any("c.mp4" in name for name in stub.asked)
        (line,) = (line for line in index.faults() if "c.mp4" in line)
        assert "by its timestamps it lasts 2,500,000,000 hours" in line


def test_a_drive_that_is_pulled_out_costs_what_it_held_no_caption(tmp_path, folder):
    class Pulled(Stub):
        def caption(self, clips):
            for clip, outcome in zip(clips, super().caption(clips), strict=True):
                if clip.source_id == "b/a.mp4" and clip.start_s > 20:
                    clip.path.unlink(missing_ok=True)
                    yield Failure(clip.video_id, "decode_video", f"{clip.path}: no such file")
                else:
                    yield outcome

    content = (folder / "b/a.mp4").read_bytes()
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        done = index.update(Pulled(), folder)
        (line,) = (line for line in done.remarks if line.startswith("b/a.mp4"))
        assert "went away or changed while it was read" in line
        kept = [r.start_s for r in index.rows() if r.path == "b/a.mp4"]
        assert kept == [0, 5, 10, 15, 20]
        (folder / "b/a.mp4").write_bytes(content)
        index.update(Stub(), folder)
        rows = [r for r in index.rows() if r.path == "b/a.mp4"]
        assert len(rows) == 12
        assert {r.status for r in rows} == {"ok"}


def test_a_file_that_goes_away_while_it_is_looked_at_is_looked_at_again(
    tmp_path, folder, monkeypatch
):
    real = clip_index.probe

    def pulled(file):
        if file.name == "c.mp4":
            file.unlink()
        return real(file)

    content = (folder / "c.mp4").read_bytes()
    monkeypatch.setattr(clip_index, "probe", pulled)
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        done = index.update(Stub(), folder)
        assert "c.mp4: cannot be read (No such file or directory)" in done.remarks
        monkeypatch.undo()
        (folder / "c.mp4").write_bytes(content)
        assert index.update(Stub(), folder).added == 1


def test_what_could_not_be_seen_of_a_clip_is_said(tmp_path, folder):
    class Half(Stub):
        def caption(self, clips):
            for clip, outcome in zip(clips, super().caption(clips), strict=True):
                fault = "2 frames are damaged" if clip.source_id == "b/a.mp4" else ""
                yield replace(outcome, fault=fault)

    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        index.update(Half(), folder)
        assert {r.status for r in index.rows() if r.path == "b/a.mp4"} == {"partial"}
        (line,) = (line for line in index.faults() if line.startswith("b/a.mp4"))
        assert line == "b/a.mp4, 0:00.0 to 0:10.0: 2 frames are damaged (and 11 more of its clips)"
        assert len(index.captioned_clips()) == 17


def test_one_folder_is_one_index_however_it_is_named(tmp_path, folder, monkeypatch):
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    names = {
        PROVENANCE.file_name(path)
        for path in (Path(), folder, tmp_path / "link", folder / "b" / "..")
    }
    assert len(names) == 1
    assert names.pop().startswith("v-")


def test_a_video_that_was_edited_to_the_same_size_is_read_again(tmp_path, folder):
    torn = folder / "torn.mp4"
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        index.update(Stub(), folder)
        before = torn.stat()
        torn.write_text("no  film")
        os.utime(torn, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
        assert torn.stat().st_size == before.st_size
        done = index.update(Stub(), folder)
        assert (done.changed, done.unchanged) == (1, 3)


def test_clips_without_a_caption_stay_and_cannot_be_found(tmp_path):
    for name in ("good", "broken", "silent"):
        video(tmp_path / f"v/{name}.mp4")
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        index.update(Stub(), tmp_path / "v")
        assert [(r.path, r.status) for r in index.rows()] == [
            ("broken.mp4", "corrupt"), ("good.mp4", "ok"), ("silent.mp4", "ok"),
        ]  # fmt: skip
        shown = index.captioned_clips()
        assert [clip.path for clip in shown.clips] == [tmp_path / "v/good.mp4"]
        assert [f.video_id for f in shown.failures] == ["broken.mp4@0", "silent.mp4@0"]
        stub = Stub()
        index.update(stub, tmp_path / "v")
        assert stub.asked == []


def test_footage_is_the_rows_with_their_vectors(tmp_path, folder):
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        assert len(index.captioned_clips()) == 0
        index.update(Stub(), folder)
        shown = index.captioned_clips()
        rows = [row for row in index.rows() if row.status == "ok"]
        assert [(c.source_id, c.start_s, c.end_s) for c in shown.clips] == [
            (r.path, r.start_s, r.end_s) for r in rows
        ]
        assert [p.caption for p in shown.predictions] == [r.caption for r in rows]
        assert shown.vectors.shape == (len(rows), 8)
        torch.testing.assert_close(shown.vectors.norm(dim=1), torch.ones(len(rows)))


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_clip_index import PROVENANCE, Stub
from atom_repro.pipelines import clip_index
from atom_repro.pipelines.clip_index import ClipIndex
where, inserts, insert = sys.argv[4], [], ClipIndex._insert
def dying(self, *values):
    inserts.append(1)
    if where == "transaction" and len(inserts) == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    insert(self, *values)
ClipIndex._insert = dying
with ClipIndex.open(Path(sys.argv[2]), PROVENANCE) as index:
    index.update(Stub(die_at=11 if where == "captions" else None), Path(sys.argv[3]))
"""


@pytest.mark.parametrize("where", ["captions", "transaction"])
def test_killed_and_completed_equals_unbroken(tmp_path, folder, where):
    with ClipIndex.open(tmp_path / "whole.db", PROVENANCE) as index:
        index.update(Stub(), folder)
        whole = contents(index)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "i.db"),
         str(folder), where], check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        kept = len([r for r in index.rows() if r.status == "ok"])
        assert kept == 9  # the one window of a.mp4 and the first batch of b/a.mp4
        stub = Stub()
        index.update(stub, folder)
        assert len(stub.asked) == 17 - kept
        assert contents(index) == whole


def test_an_error_in_the_middle_keeps_the_batches_before(tmp_path, folder):
    class Failing(Stub):
        def caption(self, clips):
            yield from list(super().caption(clips[:10]))
            raise MemoryError("no memory left")

    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        with pytest.raises(MemoryError):
            index.update(Failing(), folder)
        assert len([r for r in index.rows() if r.status == "ok"]) == 9


@pytest.mark.parametrize("key", ["weights", "embedder", "prompt", "precision", "model"])
def test_other_provenance_is_refused(tmp_path, key):
    ClipIndex.open(tmp_path / "i.db", PROVENANCE).close()
    with pytest.raises(AtomError, match=f'built with {key}=.*"other".*name another') as caught:
        ClipIndex.open(tmp_path / "i.db", replace(PROVENANCE, **{key: "other"}))
    assert "\n" not in str(caught.value)


def test_what_is_no_index_is_one_line(tmp_path, folder):
    path = tmp_path / "i.db"
    path.write_bytes(b"not a database " * 500)
    with pytest.raises(AtomError, match="damaged or no index"):
        ClipIndex.open(path, PROVENANCE)
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE else_s (a)")
    other.close()
    with pytest.raises(AtomError, match="no clip index"):
        ClipIndex.open(path, PROVENANCE)
    path.unlink()
    with ClipIndex.open(path, PROVENANCE) as index:
        index.update(Stub(), folder)
    held = path.read_bytes()
    path.write_bytes(held[: len(held) // 2])
    with pytest.raises(AtomError, match="damaged or no index"):
        ClipIndex.open(path, PROVENANCE)
    with pytest.raises(AtomError, match="name a file that can be created"):
        ClipIndex.open(tmp_path, PROVENANCE)


def test_a_folder_without_videos_empties_nothing(tmp_path, folder):
    with ClipIndex.open(tmp_path / "i.db", PROVENANCE) as index:
        index.update(Stub(), folder)
        with pytest.raises(AtomError, match="contains no videos"):
            index.update(Stub(), tmp_path / "unmounted")
        assert index.rows()
