"""The C++ runner gives what the Python runtime gives in every arm: tokens, spans, loads, bytes."""

import json
import shutil
from collections import defaultdict
from dataclasses import replace

import pytest
from exported_models import FP32, bert, llama
from runner_jobs import built, made_clips, needs_tools, run, setup_of

from atom_repro import config
from atom_repro.datatypes import AtomError
from atom_repro.hosts import runner
from atom_repro.hosts.device_runs import FOLDER, clean_up, run_on_device
from atom_repro.models.exported import Forms
from atom_repro.models.generation import GenerationSettings
from atom_repro.runtime.runtime import Arm

pytest.importorskip("executorch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    needs_tools(),
]
ARMS = [
    Arm(residency=residency, schedule=schedule, threads_beside=1)
    for residency in ("resident", "reload_stage", "reload_input", "co_resident")
    for schedule in ("sequential", "parallel")
]
PIPELINES = {
    "retrieval": {"session": "fresh"},
    "indexed retrieval": {"session": "indexed", "least_similarity": -1.0, "most": 2},
    "assembly": {
        "session": "fresh", "least_similarity": -1.0, "script_tokens": 6, "candidates": 1,
    },
    "indexed assembly of nothing": {"session": "indexed", "least_similarity": 1.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return built(tmp_path_factory)[0]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return built(tmp_path_factory)[1]


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return setup_of(llama(), FP32, tmp_path_factory)


@pytest.fixture(scope="module")
def clips(setup, tmp_path_factory):
    return made_clips(setup.model, tmp_path_factory.mktemp("videos"))


def by_lane(spans, bytes_too=True):
    """What each lane did, in its order; the embedder's files differ between the runtimes."""
    lanes = defaultdict(list)
    for span in sorted(spans, key=lambda s: s.start_s):
        lane = span.lane if span.lane == "encoder" else "main"
        read = span.bytes_read if bytes_too or span.module != "embedder" else 0
        lanes[lane].append((span.stage, span.module, span.item, read, span.tokens))
    return dict(lanes)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"beams": 1, "max_new_tokens": 5}, id="greedy", marks=pytest.mark.long),
        pytest.param({"beams": 4, "max_new_tokens": 9}, id="beams"),
        pytest.param({"beams": 3, "max_new_tokens": 9, "length_penalty": 0.4, "forbid_end": True},
                     id="of one length", marks=pytest.mark.long),
        pytest.param({"beams": 3, "max_new_tokens": 9, "min_new_tokens": 4, "length_rule": "gnmt",
                      "finished": "stay"}, id="released search", marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_every_arm_is_that_of_the_python_runtime(program, setup, clips, tmp_path, changes):
    setup = replace(setup, generation=GenerationSettings(**changes))
    traces = run(program, tmp_path, setup, clips, ARMS)
    for arm, trace in zip(ARMS, traces, strict=True):
        with setup.session(arm) as session:
            predictions = list(session.caption(clips))
        spans = session.timeline.spans()
        assert {p.video_id: p.token_ids for p in predictions} == {
            clip: generated.token_ids for clip, generated in trace.captions.items()
        }
        for prediction in predictions:
            log_prob = trace.captions[prediction.video_id].log_prob
            assert log_prob == pytest.approx(prediction.log_prob, rel=1e-4)
        assert by_lane(trace.spans) == by_lane(spans)
        assert trace.memory_peak.anonymous > 0
    assert len({generated.token_ids for generated in traces[0].captions.values()}) > 1


@pytest.mark.long
@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_answer_as_the_python_ones(program, setup, clips, tmp_path, name):
    changes = [f"pipeline.{key}={value}" for key, value in PIPELINES[name].items()]
    task = "assembly" if "assembly" in name else "retrieval"
    prompts = ["pipeline.prompts=['a  red','sea']"]
    pipeline = config.build(
        config.compose("latency", [f"pipeline={task}", *changes, *prompts]).pipeline
    )
    setup = replace(setup, generation=GenerationSettings(beams=2, max_new_tokens=6))
    traces = run(program, tmp_path, setup, clips, ARMS, pipeline=pipeline.for_runner())
    for arm, trace in zip(ARMS, traces, strict=True):
        with setup.session(arm) as session:
            answers = pipeline.run(session, clips)
        assert len(answers) == len(trace.answers) == 2
        for expected, answer in zip(answers, trace.answers, strict=True):
            texts = {p.video_id: (p.caption, p.token_ids) for p in expected.predictions}
            assert texts == {c: (g.text, g.token_ids) for c, g in answer.captions.items()}
            assert answer.ranking == expected.ranking
            assert answer.texts == expected.texts
            assert answer.end_s > answer.start_s
        assert by_lane(trace.spans, bytes_too=False) == by_lane(
            session.timeline.spans(), bytes_too=False
        )
    wrote = [answer.texts for answer in traces[0].answers]
    assert all(wrote) == (name == "assembly")


def test_a_pipeline_that_the_runner_does_not_know_says_so():
    summary = config.build(config.compose("latency", ["pipeline=summary"]).pipeline)
    with pytest.raises(AtomError, match="pipeline=summary; choose retrieval or assembly"):
        summary.for_runner()


def test_clips_overlap_in_the_parallel_arm_alone(program, setup, clips, tmp_path):
    def overlaps(trace):
        encodes, captions = (
            [(s.start_s, s.end_s) for s in trace.spans if s.stage == stage]
            for stage in ("encode", "caption")
        )
        return any(a < d and c < b for a, b in encodes for c, d in captions)

    sequential, _ = run(program, tmp_path, setup, clips, ARMS[:2])
    assert not overlaps(sequential)
    many = [replace(clips[i % 3], video_id=str(i)) for i in range(400)]
    (parallel,) = run(program, tmp_path, setup, many, ARMS[1:2])
    assert overlaps(parallel)
    assert list(parallel.captions) == [clip.video_id for clip in many]


def test_packed_weights_are_kept_in_files_and_change_nothing(program, setup, clips, tmp_path):
    def packed():
        return {p.name: p.stat().st_size for p in tmp_path.glob("packed/*/*")}

    arms = [arm for arm in ARMS if arm.residency in ("reload_stage", "co_resident")]
    (plain,) = {tuple(t.captions.values()) for t in run(program, tmp_path, setup, clips, arms)}
    made = []
    for _ in range(2):
        for trace in run(program, tmp_path, setup, clips, arms, packed="packed"):
            assert tuple(trace.captions.values()) == plain
        made.append(packed())
    assert made[0] == made[1]
    assert set(made[0]) == {"encoder.pte.packed", "decoder.pte.packed"}
    # Of a file that was cut off it takes nothing.
    for path in tmp_path.glob("packed/*/*"):
        path.write_bytes(path.read_bytes()[:-9])
    for trace in run(program, tmp_path, setup, clips, arms, packed="packed"):
        assert tuple(trace.captions.values()) == plain
    assert packed() == made[0]


def test_a_device_gives_what_this_machine_gives(
    program, bundle, phone, device, setup, clips, tmp_path
):
    here, there = tmp_path / "here", tmp_path / "there"
    expected = run(program, here, setup, clips, ARMS[:2])
    nonce = runner.write_job(there, setup, clips, ARMS[:2])
    run_on_device(phone, bundle, there, every_s=0.1)
    traces = runner.read_results(there / runner.RESULTS, nonce, 2)
    for trace, like in zip(traces, expected, strict=True):
        assert trace.captions == like.captions
        assert by_lane(trace.spans) == by_lane(like.spans)
    # The second run sends what has changed, which the frames and modules have not.
    device.faults.free_bytes = 2**20
    nonce = runner.write_job(there, setup, clips, ARMS[:1])
    run_on_device(phone, bundle, there, every_s=0.1)
    assert runner.read_results(there / runner.RESULTS, nonce, 1)[0].captions == traces[0].captions
    clean_up(phone)
    assert not device.local(FOLDER).exists()


def test_what_the_runner_cannot_do_is_said_before(setup, clips, tmp_path):
    def refused(message, setup=setup, arm=ARMS[0], **options):
        with pytest.raises(AtomError, match=message):
            runner.write_job(tmp_path, setup, clips, [arm], **options)

    refused("neither runtime.decode_batch", arm=replace(ARMS[0], decode_batch=2))
    refused("nor runtime.encode_once", arm=replace(ARMS[0], encode_once=True))
    fixed = replace(setup, generation=replace(setup.generation, fixed_steps=True))
    refused("leave generation.fixed_steps", setup=fixed)
    plain = replace(setup, engine=replace(setup.engine, forms=Forms(fused=False)))
    refused("engine.fused and engine.hoisted", setup=plain)
    refused("workspaces=shared", workspaces="shared")
    refused("threads_beside=2 is neither", arm=replace(ARMS[0], threads_alone=4, threads_beside=2))
    refused("has Llama decoders; model=bert", setup=replace(setup, model=bert()))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f, j: j["files"].update(encoder="none.pte"), "none.pte does not load forward"),
        (lambda f, j: j.pop("prompt"), "the job lacks prompt"),
        (lambda f, j: j["generation"].update(beams=9), "1 to 4 beams, not 9"),
        (lambda f, j: j.update(prompt=[1, 2]), "fewer places for visual tokens"),
        (lambda f, j: (f / "0.frames").write_bytes(b"x"), 'clip "0" are cut off'),
        (lambda f, j: j.update(queue="many"), "where it needs a number"),
    ],
)
def test_a_broken_job_is_one_line(program, setup, clips, tmp_path, spoil, message):
    runner.write_job(tmp_path, setup, clips, ARMS[:2])
    job = json.loads((tmp_path / runner.JOB).read_text())
    spoil(tmp_path, job)
    (tmp_path / runner.JOB).write_text(json.dumps(job))
    with pytest.raises(AtomError, match=message):
        runner.run_job(program, tmp_path)


def test_results_without_their_end_do_not_count(program, setup, clips, tmp_path):
    nonce = runner.write_job(tmp_path, setup, clips, ARMS[:1])
    runner.run_job(program, tmp_path)
    results = tmp_path / runner.RESULTS
    whole = results.read_text()
    with pytest.raises(AtomError, match="incomplete, or of another run"):
        runner.read_results(results, "another", 1)
    for cut in (len(whole) - 20, len(whole) // 2, 0):
        results.write_text(whole[:cut])
        with pytest.raises(AtomError, match="incomplete"):
            runner.read_results(results, nonce, 1)


def test_a_build_is_used_again_and_a_failed_one_says_where(program, monkeypatch, tmp_path):
    changed = program.stat().st_mtime_ns
    assert runner.build_runner(program.parents[1]) == program
    assert program.stat().st_mtime_ns == changed
    broken = shutil.copytree(runner.SOURCE, tmp_path / "source")
    (broken / "main.cpp").write_text("int main() { return nothing; }")
    monkeypatch.setattr(runner, "SOURCE", broken)
    with pytest.raises(AtomError, match=r"does not compile; .*build\.log"):
        runner.build_runner(tmp_path / "build")
    assert "nothing" in (tmp_path / "build/build.log").read_text()
    assert not list((tmp_path / "build").glob("*/runner"))
