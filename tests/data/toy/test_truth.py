"""Evaluation truth of the generated data set: the same every time, and checked against scenes."""

import itertools
from dataclasses import replace

import pytest

from atom_repro.data.toy.truth import (
    assembly_requests,
    events,
    questions,
    scene_at,
    scenes_of,
    single_scene_clips,
)
from atom_repro.datatypes import AtomError


def test_scenes_have_names_and_times(planned):
    video = planned.videos()[0]
    spans = scenes_of(video)
    assert [span.scene_id for span in spans] == [f"{video.video_id}#{i}" for i in range(len(spans))]
    assert spans[0].start_s == 0
    assert all(a.end_s == b.start_s for a, b in itertools.pairwise(spans))
    assert spans[0].attributes["object"] == {thing for _, thing in spans[0].scene.things}


def test_a_window_shows_the_scene_that_fills_most_of_it(planned):
    video = planned.videos()[0]
    first, second = scenes_of(video)[:2]
    cut = first.end_s
    assert scene_at(video, 0, 1) == first
    assert scene_at(video, cut - 3, cut + 2) == first
    assert scene_at(video, cut - 2, cut + 3) == second
    with pytest.raises(ValueError, match="shows nothing from 1000 s"):
        scene_at(video, 1000, 1010)


@pytest.mark.parametrize("source", ["test", "videos"])
def test_requests_name_exactly_the_scenes_that_fit(planned, source):
    clips = planned.videos() if source == "videos" else single_scene_clips(planned.clips("test"))
    pool = 4 if source == "videos" else 30
    made = assembly_requests(clips, count=40, pool_size=pool, seed=0)
    assert made == assembly_requests(clips, count=40, pool_size=pool, seed=0)
    assert made[:5] == assembly_requests(clips, count=5, pool_size=pool, seed=0)
    assert made != assembly_requests(clips, count=40, pool_size=pool, seed=1)
    by_id = {clip.video_id: clip for clip in clips}
    for request in made:
        assert len(request.pool) == len(set(request.pool)) == pool
        spans = [span for video_id in request.pool for span in scenes_of(by_id[video_id])]
        for scene_filter, wanted in zip(request.filters, request.wanted, strict=True):
            assert wanted == {span.scene_id for span in spans if scene_filter.matches(span.scene)}
            assert 1 <= len(wanted) <= 3
        together = frozenset().union(*request.wanted)
        assert len(together) == sum(map(len, request.wanted))
        assert request.relevant_videos == {scene_id.split("#")[0] for scene_id in together}
        assert len(request.filters) > 1 or not request.ordered
    assert len({request.text for request in made}) == 40
    assert 5 < sum(request.ordered for request in made) < 40


def test_a_pool_needs_clips(planned):
    clips = single_scene_clips(planned.clips("test"))
    for pool in (0, len(clips) + 1):
        with pytest.raises(AtomError, match=r"dataset\.test"):
            assembly_requests(clips, count=1, pool_size=pool, seed=0)


def test_only_clips_of_one_scene(planned):
    clips = planned.clips("test")
    kept = single_scene_clips(clips)
    assert 0.7 * len(clips) < len(kept) < len(clips)
    assert all(len(scenes_of(clip)) == 1 for clip in kept)


def test_questions_are_different_kinds_of_one_clip(planned):
    clips = [*planned.clips("test"), *planned.videos()]
    made = questions(clips, per_clip=3, seed=0)
    assert made == questions(clips, per_clip=3, seed=0)
    assert questions(clips[:4], per_clip=3, seed=0) == [
        q for q in made if q.video_id in {clip.video_id for clip in clips[:4]}
    ]
    assert len({q.question_id for q in made}) == len(made) > 2.5 * len(clips)
    counts = dict.fromkeys(("object", "colour", "count", "place", "motion", "yes_no"), 0)
    truth = {clip.video_id: planned.truth(clip) for clip in clips}
    for asked in made:
        kind = asked.question.kind
        counts[kind] += 1
        if kind != "yes_no":
            said = planned.stated(asked.question.answer)
            values = said[kind] or {asked.question.answer}
            assert values <= truth[asked.video_id][kind], asked
    assert min(counts.values()) > 50


def test_events_are_sentences_with_their_times(planned):
    videos = planned.videos()
    found = events(videos)
    assert len(found) > 2 * len(videos)
    by_id = {clip.video_id: clip for clip in videos}
    for event in found:
        span = scene_at(by_id[event.video_id], event.start_s, event.end_s)
        assert (span.start_s, span.end_s) == (event.start_s, event.end_s)
        assert planned.stated(event.text) == span.attributes


def test_an_event_that_happens_twice_is_none(planned):
    video = planned.videos()[0]
    first, second = video.meta["scenes"][:2]
    repeated = [first, second, {**first, "start_s": 50.0, "end_s": 60.0}]
    found = events([replace(video, meta={"scenes": repeated})])
    assert [event.event_id for event in found] == [f"{video.video_id}#1"]
