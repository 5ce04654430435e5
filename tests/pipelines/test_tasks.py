"""The tasks on footage whose captions and vectors are made up: what is found, grouped and said."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from atom_repro import prompts as wording
from atom_repro.config import CONF, build, compose
from atom_repro.datatypes import AtomError, Clip, Prediction
from atom_repro.evaluation.tasks import balanced_accuracy, best_threshold
from atom_repro.models.generation import Generated
from atom_repro.pipelines import assembly, localisation, questions, search, summary
from atom_repro.pipelines.captioned_clips import CaptionedClips, rank_clips
from atom_repro.pipelines.localisation import best_moment
from atom_repro.pipelines.summary import group_scenes
from atom_repro.runtime.timeline import Timeline

AXES = {"ball": (1, 0, 0), "boat": (0, 1, 0), "snow": (0, 0, 1), "boat in snow": (0, 0.8, 0.6)}


class Scripted:
    """A runtime whose embedder knows four texts and whose decoder says what it is told to."""

    def __init__(self, *said):
        self.timeline, self.said, self.asked, self.stages = Timeline(), list(said), [], 0

    def embed(self, texts, item):
        return torch.tensor([AXES[text] for text in texts], dtype=torch.float32).reshape(-1, 3)

    def write(self, prompt, settings, *, stage, item):
        self.asked.append((stage, prompt))
        return Generated((), 0.0, 0.0, text=self.said.pop(0))

    def ask(self, clip, prompt, settings):
        self.asked.append((clip.video_id, prompt))
        return Generated((), 0.0, 0.0, text=self.said.pop(0))

    def end_stage(self):
        self.stages += 1


def clip(video, start_s):
    return Clip(
        "folder", "", f"{video}@{start_s}", Path(f"{video}.mp4"), video, start_s, start_s + 10
    )


def footage(*rows):
    """Rows are (video, start, caption)."""
    return CaptionedClips(
        tuple(clip(video, start) for video, start, _ in rows),
        tuple(Prediction(f"{video}@{start}", text, (1,), 0.0) for video, start, text in rows),
        Scripted().embed([text for _, _, text in rows], ""),
    )


SEEN = footage(("a", 0, "ball"), ("a", 5, "ball"), ("b", 0, "boat"), ("c", 0, "boat in snow"))


def names(hits):
    return [hit.clip.video_id for hit in hits]


def test_hits_fall_in_similarity_and_equals_keep_their_order():
    hits = rank_clips(Scripted(), SEEN, "ball", "", max_hits=10, least_similarity=-1.0)
    assert names(hits) == ["a@0", "a@5", "b@0", "c@0"]
    assert [round(h.similarity, 3) for h in hits] == [1, 1, 0, 0]


def test_what_does_not_fit_is_not_found():
    assert names(rank_clips(Scripted(), SEEN, "boat", "", max_hits=10, least_similarity=0.5)) == [
        "b@0",
        "c@0",
    ]
    assert rank_clips(Scripted(), SEEN, "snow", "", max_hits=10, least_similarity=0.7) == []


def test_overlapping_windows_and_like_captions_are_found_once():
    hits = rank_clips(
        Scripted(), SEEN, "ball", "", max_hits=10, least_similarity=-1.0, same_similarity=0.97
    )
    assert names(hits) == ["a@0", "b@0", "c@0"]
    hits = rank_clips(
        Scripted(), SEEN, "boat", "", max_hits=10, least_similarity=0.1, same_similarity=0.75
    )
    assert names(hits) == ["b@0"]


def test_a_search_without_footage_finds_nothing():
    nothing = footage()
    task = search.build(
        name="retrieval", session="fresh", prompts=["x"], most=3, least_similarity=0.0
    ).task
    assert task.respond(Scripted(), nothing, "ball", "").hits == ()


def assembled(runtime, prompt="boat", **changes):
    settings = {
        "name": "assembly", "session": "fresh", "prompts": ["x"], "candidates": 5,
        "least_similarity": 0.1, "same_similarity": 0.97, "fps": 10.0,
        "least_cut_s": 1.0, "script_beams": 1, "script_tokens": 64,
        "forbid_end": False,
    }  # fmt: skip
    return assembly.build(**settings | changes).task.respond(runtime, SEEN, prompt, "")


def test_the_decoder_decides_order_and_words():
    runtime = Scripted("2. snow falls on a boat\n 1. then the sea\n 7. nobody")
    reply = assembled(runtime)
    script = reply.result
    assert [(s.clip.video_id, s.narration) for s in script.shots] == [
        ("c@0", "snow falls on a boat"),
        ("b@0", "then the sea"),
    ]
    assert script.written
    assert runtime.asked == [("script", wording.script("boat", ["boat", "boat in snow"]))]
    assert runtime.stages == 1  # the search before the script is a stage of its own


def test_a_script_that_names_no_clip_falls_back_to_the_ranking():
    script = assembled(Scripted("once upon a time")).result
    assert [s.narration for s in script.shots] == ["boat", "boat in snow"]
    assert not script.written


def test_nothing_fits_so_nothing_is_written():
    runtime = Scripted()
    reply = assembled(runtime, "snow", least_similarity=0.7)
    assert (reply.hits, reply.texts, reply.result.shots) == ((), (), ())
    assert runtime.asked == []


def test_scenes_are_neighbours_that_are_alike():
    shown = footage(("a", 0, "ball"), ("a", 5, "ball"), ("a", 10, "boat"), ("a", 15, "ball"))
    assert group_scenes(shown, [0, 1, 2, 3], 0.7) == [[0, 1], [2], [3]]


def summed(runtime, shown, prompt="all", most_scenes=5):
    task = summary.build(
        name="summary", session="fresh", prompts=["all"], scene_similarity=0.7,
        most_scenes=most_scenes, summary_beams=1, summary_tokens=32,
    ).task  # fmt: skip
    return task.respond(runtime, shown, prompt, "").result


def test_a_video_is_summed_up_by_scenes_then_whole():
    shown = footage(
        ("a", 10, "boat"), ("a", 0, "ball"), ("a", 5, "ball"), ("a", 15, "boat in snow")
    )
    runtime = Scripted("a boat, later in snow", "a ball, then a boat")
    (video,) = summed(runtime, shown)
    assert [(s.start_s, s.end_s, s.text) for s in video.scenes] == [
        (0, 15, "ball"),
        (10, 25, "a boat, later in snow"),
    ]
    assert video.text == "a ball, then a boat"
    assert [prompt for _, prompt in runtime.asked] == [
        wording.scene_summary(["boat", "boat in snow"]),
        wording.video_summary(["ball", "a boat, later in snow"]),
    ]


def test_many_scenes_are_summed_up_in_rounds():
    rows = [("a", 10 * i, ("ball", "boat", "snow")[i % 3]) for i in range(5)]
    runtime = Scripted("one", "two", "three", "all of it")
    (video,) = summed(runtime, footage(*rows), most_scenes=2)
    assert video.text == "all of it"
    assert [prompt for _, prompt in runtime.asked] == [
        wording.video_summary(pair)
        for pair in (["ball", "boat"], ["snow", "ball"], ["one", "two"], ["three", "boat"])
    ]


def test_an_unknown_video_is_named_with_those_there_are():
    with pytest.raises(AtomError, match=r"no video 'z' with a caption; there are a, b, c"):
        summed(Scripted(), SEEN, "z")


def test_two_videos_of_one_file_name_are_two():
    clips = [replace(c, path=Path(c.source_id)) for c in (clip("a/x.mp4", 0), clip("b/x.mp4", 0))]
    shown = replace(footage(("a", 0, "ball"), ("b", 0, "boat")), clips=tuple(clips))
    assert [v.name for v in summed(Scripted(), shown)] == ["a/x.mp4", "b/x.mp4"]
    assert [v.name for v in summed(Scripted(), shown, "x")] == ["a/x.mp4", "b/x.mp4"]
    assert [v.name for v in summed(Scripted(), shown, "b/x.mp4")] == ["b/x.mp4"]


def asked(runtime, prompt, **changes):
    settings = {
        "name": "questions", "session": "fresh", "prompts": ["x"], "looks_at": "captions",
        "candidates": 2, "least_similarity": 0.5, "answer_beams": 1, "answer_tokens": 8,
    }  # fmt: skip
    return questions.build(**settings | changes).task.respond(runtime, SEEN, prompt, "").result


def test_an_answer_rests_on_the_captions_that_fit_in_their_order():
    runtime = Scripted("white")
    found = asked(runtime, "boat in snow")
    assert (found.answer, names(found.evidence)) == ("white", ["c@0", "b@0"])
    assert runtime.asked == [("answer", wording.answer("boat in snow", ["boat", "boat in snow"]))]


def test_a_visual_answer_looks_at_the_best_clip():
    runtime = Scripted("blue")
    assert asked(runtime, "ball", looks_at="visual").answer == "blue"
    assert runtime.asked == [("a@0", wording.visual_answer("ball"))]


def test_no_evidence_is_no_answer():
    assert asked(Scripted(), "snow", least_similarity=0.9).answer == ""


def test_a_moment_is_where_the_windows_agree():
    shown = footage(
        ("a", 0, "ball"), ("a", 5, "ball"), ("a", 10, "boat"), ("a", 15, "boat"), ("a", 20, "ball")
    )
    hits = rank_clips(Scripted(), shown, "boat", "", max_hits=9, least_similarity=-1.0)
    moment = best_moment(hits, margin=0.1)
    assert (moment.start_s, moment.end_s, moment.similarity) == (15, 20, 1.0)
    wider = best_moment(hits, margin=0.6)
    assert (wider.start_s, wider.end_s) == (10, 25)


def test_moments_of_videos_that_do_not_fit_are_left_out():
    task = localisation.build(
        name="localisation",
        session="fresh",
        prompts=["x"],
        most=5,
        least_similarity=0.7,
        margin=0.1,
    ).task
    found = task.respond(Scripted(), SEEN, "boat", "").result
    assert [moment.video.stem for moment in found] == ["b", "c"]
    assert task.respond(Scripted(), SEEN, "snow", "").result == ()


@pytest.mark.parametrize(
    ("pipeline", "override", "said"),
    [
        ("assembly", "pipeline.candidates=0", "candidates=0: must be at least 1"),
        ("assembly", "pipeline.fps=500.0", "fps=500.0: choose from 1 to 120"),
        ("assembly", "pipeline.script_tokens=0", "script_tokens=0: must be at least 1"),
        ("retrieval", "pipeline.least_similarity=2.0", "lies between -1 and 1"),
        ("summary", "pipeline.most_scenes=1", "never ends"),
        ("questions", "pipeline.looks_at=sound", "none of captions, visual"),
        ("localisation", "pipeline.margin=-0.1", "cannot be negative"),
        ("retrieval", "pipeline.session=late", "neither fresh nor indexed"),
        ("retrieval", "pipeline.prompts=[' ']", "none that is empty"),
    ],
)
def test_settings_out_of_range_are_named(pipeline, override, said):
    cfg = compose("latency", [f"pipeline={pipeline}", override])
    with pytest.raises(AtomError, match=said):
        build(cfg.pipeline)


@pytest.mark.parametrize("path", sorted((CONF / "pipeline").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_pipeline_is_named_after_its_file(path):
    assert build(compose("latency", [f"pipeline={path.stem}"]).pipeline).name == path.stem


def test_the_threshold_is_the_similarity_that_parts_best_and_none_without_captions():
    lines = [
        {"fits": fits, "similarity": s}
        for fits, s in ((True, 0.9), (True, 0.6), (False, 0.5), (False, 0.2))
    ]
    assert best_threshold(lines) == 0.6
    assert balanced_accuracy(lines, 0.6) == 1.0
    assert balanced_accuracy(lines, 0.3) == 0.75
    assert best_threshold([]) is None
