"""Whatever happens while a file is written, a reader meets the old content or the new."""

from pathlib import Path

import pytest

from atom_repro.datatypes import AtomError
from atom_repro.records.atomic import atomic_write


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    target = tmp_path / "state.pt"
    target.write_text("old")
    with pytest.raises(AtomError, match="no space left"), atomic_write(target):
        Path("/dev/full").write_bytes(bytes(1000))
    assert target.read_text() == "old"


def test_atomically_replaces_folders_and_files(tmp_path):
    for text in ("old", "new"):
        with atomic_write(tmp_path / "folder") as building:
            building.mkdir()
            (building / "file").write_text(text)
        with atomic_write(tmp_path / "file") as building:
            building.write_text(text)
    assert (tmp_path / "folder/file").read_text() == (tmp_path / "file").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_what_stops_the_writing_leaves_the_old_file_alone(tmp_path, error):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(error), atomic_write(target) as building:
        building.write_text("half")
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert target.read_text() == "old"
