"""A movie that is not what its edit list says is found out, whatever differs."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from films import film

from atom_repro.datatypes import AtomError
from atom_repro.records.provenance import file_hash
from atom_repro.video.editing.cuts import Cut
from atom_repro.video.editing.edit_list import Box, EditList
from atom_repro.video.editing.verify import verify_movie
from atom_repro.video.editing.writer import render_movie
from atom_repro.video.file import write_video


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[EditList, Path]:
    """Two cuts of two films, the second of which has sound and is upright."""
    folder = tmp_path_factory.mktemp("made")
    film(folder / "a.mp4", fps=30, clock=30, size=(128, 64))
    film(folder / "b.mp4", size=(64, 96), sound={})
    cuts = [Cut("a", folder / "a.mp4", 0.5, 1.2), Cut("b", folder / "b.mp4", 0.5, 1.2)]
    edited = render_movie(cuts, folder / "movie.mp4", width=128, height=96)
    verify_movie(edited, folder / "movie.mp4")
    return edited, folder / "movie.mp4"


def with_cut(edited: EditList, index: int, **changes) -> EditList:
    cuts = list(edited.cuts)
    cuts[index] = replace(cuts[index], **changes)
    return replace(edited, cuts=tuple(cuts))


def swapped(edited: EditList) -> EditList:
    first, second = edited.cuts
    places = [(c.start_frame, c.end_frame, c.start_s, c.end_s) for c in (first, second)]
    names = ("start_frame", "end_frame", "start_s", "end_s")
    cuts = [
        replace(cut, **dict(zip(names, place, strict=True)), box=box)
        for cut, place, box in zip((second, first), places, (first.box, second.box), strict=True)
    ]
    return replace(edited, cuts=tuple(cuts))


def later_border(edited: EditList) -> EditList:
    at = edited.cuts[1].start_frame + 1
    return with_cut(with_cut(edited, 0, end_frame=at), 1, start_frame=at)


CLAIMS = {
    "other bytes": (
        lambda e: replace(e, sha256="0" * 64), "its sha256 is not the one in the edit list"
    ),
    "other order": (swapped, r"frame 0 of b .* does not match its source at 0\.51"),
    "other time": (
        lambda e: with_cut(e, 0, source_start_s=0.7), "frame 0 of a .* does not match its source"
    ),
    "other box": (lambda e: with_cut(e, 1, box=Box(48, 0, 32, 96)), "of b .* (is|does) not"),
    "larger box": (
        lambda e: with_cut(e, 1, box=Box(0, 0, 128, 96)), "of b .* does not match its source"
    ),
    "other border": (later_border, "frame 22, where b .* starts, is not a keyframe"),
    "a gap": (lambda e: with_cut(e, 1, start_frame=25), "starts at frame 25, not at 21"),
    "more frames": (
        lambda e: with_cut(replace(e, frames=43), 1, end_frame=43), "its sound has 67584 samples"
    ),
    "fewer cuts": (lambda e: replace(e, cuts=e.cuts[:1]), "its cuts have 21 frames"),
    "other rate": (lambda e: replace(e, fps=e.fps * 2), "its sound has"),
    "other size": (lambda e: replace(e, width=120), "frame 0 is 128 x 96 pixels"),
    "no sound": (lambda e: replace(e, has_sound=False), "it has 1 sound tracks"),
}  # fmt: skip


@pytest.mark.parametrize("what", CLAIMS)
def test_a_false_claim_is_found(made, what):
    edited, movie = made
    change, said = CLAIMS[what]
    with pytest.raises(AtomError, match=rf"movie\.mp4: .*({said}).*; render the movie again"):
        verify_movie(change(edited), movie)


def test_pictures_are_counted_and_timed_without_sound_too(made, tmp_path):
    cut = Cut("a", made[0].cuts[0].path, 0.5, 1.2)
    edited = render_movie([cut], tmp_path / "movie.mp4")
    longer = with_cut(replace(edited, frames=22), 0, end_frame=22)
    with pytest.raises(AtomError, match="it has 21 frames, the list says 22"):
        verify_movie(longer, tmp_path / "movie.mp4")
    with pytest.raises(AtomError, match=r"frame 1 is shown at 0\.03.* s instead of 0\.0400"):
        verify_movie(replace(edited, fps=Fraction(25)), tmp_path / "movie.mp4")
    with pytest.raises(AtomError, match="it has 0 sound tracks"):
        verify_movie(replace(edited, has_sound=True), tmp_path / "movie.mp4")


def test_light_around_a_picture_is_found(made, tmp_path):
    edited, _ = made
    silent = render_movie(
        [Cut("a", edited.cuts[0].path, 0.5, 1.2)], tmp_path / "silent.mp4", width=128, height=96
    )
    pixels = np.full((21, 96, 128, 3), 128, np.uint8)
    write_video(tmp_path / "grey.mp4", pixels, 30)
    claimed = replace(silent, sha256=file_hash(tmp_path / "grey.mp4"))
    with pytest.raises(AtomError, match="does not match its source"):
        verify_movie(claimed, tmp_path / "grey.mp4")
    source = edited.cuts[0].path.with_name("grey.mp4")
    write_video(source, pixels[:, :64], 30)
    cut = replace(silent.cuts[0], path=source, source_sha256=file_hash(source), source_start_s=0.0)
    with pytest.raises(AtomError, match="is not black outside its box"):
        verify_movie(replace(claimed, cuts=(cut,)), tmp_path / "grey.mp4")


def test_half_a_movie_is_found(made, tmp_path):
    edited, movie = made
    half = tmp_path / "half.mp4"
    half.write_bytes(movie.read_bytes()[: movie.stat().st_size // 2])
    with pytest.raises(AtomError, match=r"half\.mp4: "):
        verify_movie(replace(edited, sha256=file_hash(half)), half)
    with pytest.raises(AtomError, match=r"none\.mp4: there is no such movie"):
        verify_movie(edited, tmp_path / "none.mp4")


def test_a_source_that_changed_or_went_is_named(made, tmp_path):
    edited, movie = made
    other = tmp_path / "other.mp4"
    with pytest.raises(AtomError, match=r"other\.mp4: the source of a .* is missing; restore"):
        verify_movie(with_cut(edited, 0, path=other), movie)
    film(other, seconds=1.5)
    with pytest.raises(AtomError, match=r"other\.mp4: changed since a "):
        verify_movie(with_cut(edited, 0, path=other), movie)
