"""Every arm runs one code: same tokens, and reads exactly what its residency says."""

import itertools
import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.module_files import TRAINED
from atom_repro.datatypes import AtomError, Clip, Failure, OutOfMemory, Prediction
from atom_repro.device.cpu import Cpu
from atom_repro.engines.eager import EagerEngine
from atom_repro.engines.modules import EmbedderModule
from atom_repro.models.generation import Generated, GenerationSettings
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.pipelines import search
from atom_repro.runtime.residency import (
    CAPTION_DECODER,
    ENCODER,
    RESIDENCIES,
    SCRIPT_DECODER,
    ModuleLoader,
    ModuleStore,
    Role,
    module_loaders,
)
from atom_repro.runtime.runtime import Arm, Runtime
from atom_repro.runtime.schedule import SCHEDULES
from atom_repro.runtime.timeline import Timeline
from atom_repro.video.file import DecodedFrames, write_video

CLIPS, PROMPTS = 3, 2


@pytest.fixture
def clips(tmp_path):
    made = []
    for i in range(CLIPS):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
        path = tmp_path / f"clip{i}.mp4"
        write_video(path, pixels, 4)
        made.append(Clip("toy", "test", f"clip{i}", path))
    return made


def session(saved, model, clips, arm, kind="fresh"):
    pipeline = search.build(
        name="retrieval",
        session=kind,
        prompts=["a red ball", "two boats"][:PROMPTS],
        most=10,
        least_similarity=-1.0,
    )
    loaders = module_loaders(
        EagerEngine(), Checkpoint(saved), TRAINED, model, Cpu(), embedder="embedded"
    )
    settings = GenerationSettings(max_new_tokens=6, forbid_end=True)
    with Runtime(arm, loaders, Cpu(), model=model, settings=settings) as runtime:
        answers = pipeline.run(runtime, clips)
    return answers, runtime.timeline.spans()


def loads(spans):
    names = [s.module for s in spans if s.stage == "load"]
    return {name: names.count(name) for name in set(names)}


def test_all_arms_and_sessions_give_the_same_tokens(saved, model, clips):
    outputs = []
    for residency, schedule, kind in itertools.product(
        RESIDENCIES, SCHEDULES, ("fresh", "indexed")
    ):
        answers, _ = session(saved, model, clips, Arm(residency=residency, schedule=schedule), kind)
        outputs.append([([p.token_ids for p in a.predictions], a.ranking) for a in answers])
    assert all(output == outputs[0] for output in outputs)
    assert len(set(outputs[0][0][0])) > 1  # the clips differ, so do their captions


@pytest.mark.parametrize(
    ("residency", "expected"),
    [
        ("resident", {"encoder": 1, "decoder": 1, "embedder": 1}),
        ("co_resident", {"encoder": 1, "decoder": 1, "embedder": 1}),
        ("reload_stage", {"encoder": PROMPTS, "decoder": PROMPTS, "embedder": PROMPTS}),
        (
            "reload_input",
            # the embedder serves the index and the prompt, each an input of its own
            {"encoder": CLIPS * PROMPTS, "decoder": CLIPS * PROMPTS, "embedder": 2 * PROMPTS},
        ),
    ],
)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_residency_decides_how_often_each_module_is_read(
    saved, model, clips, residency, schedule, expected
):
    _, spans = session(saved, model, clips, Arm(residency=residency, schedule=schedule))
    assert loads(spans) == expected
    assert sum(s.stage == "release" for s in spans) == sum(expected.values())
    sizes = Checkpoint(saved).bytes(TRAINED)
    assert {s.bytes_read for s in spans if s.module == "decoder" and s.stage == "load"} == {
        sizes["decoder"]
    }


def test_an_indexed_session_captions_once(saved, model, clips):
    arm = Arm(residency="resident", schedule="parallel")
    _, spans = session(saved, model, clips, arm, "indexed")
    assert sum(s.stage == "caption" for s in spans) == CLIPS
    assert sum(s.stage == "embed" for s in spans) == 1 + PROMPTS


def test_parallel_uses_two_lanes_and_sequential_one(saved, model, clips):
    for schedule, lanes in (
        ("sequential", {"MainThread"}),
        ("parallel", {"MainThread", "encoder"}),
    ):
        _, spans = session(saved, model, clips, Arm(residency="resident", schedule=schedule))
        assert {s.lane for s in spans} == lanes


@pytest.mark.parametrize(("schedule", "threads"), [("sequential", 3), ("parallel", 2)])
def test_a_module_that_works_alone_has_the_threads_of_one_alone(
    saved, model, clips, monkeypatch, schedule, threads
):
    used = []

    def counted(name):
        work = getattr(Runtime, name)

        def wrapped(self, *arguments, **options):
            used.append(torch.get_num_threads())
            return work(self, *arguments, **options)

        monkeypatch.setattr(Runtime, name, wrapped)

    counted("_encode")
    counted("_caption")
    arm = Arm(residency="resident", schedule=schedule, threads_alone=3, threads_beside=2)
    try:
        session(saved, model, clips, arm)
        assert used == [threads] * (2 * CLIPS * PROMPTS)
        assert torch.get_num_threads() == 3  # what works behind the stage works alone
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_windows_that_overlap_share_their_decoded_frames(
    saved, model, tmp_path, monkeypatch, schedule
):
    path = tmp_path / "long.mp4"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    write_video(path, pixels, 4)
    windows = [
        Clip("toy", "test", f"{start_s}", path, start_s=start_s, end_s=start_s + 4.0)
        for start_s in (0.0, 2.0, 4.0, 6.0)
    ]
    decoded = []
    decode = DecodedFrames.__next__

    def counted(self):
        frame = decode(self)
        decoded.append(frame.pts)
        return frame

    monkeypatch.setattr(DecodedFrames, "__next__", counted)
    said = []
    for decode_once in (False, True):
        arm = Arm(residency="resident", schedule=schedule, decode_once=decode_once)
        answers, _ = session(saved, model, windows, arm, "indexed")
        said.append([p.token_ids for p in answers[0].predictions])
        if decode_once:
            assert len(decoded) == len(set(decoded)) <= 40  # the windows' frames, at 4 a second
        else:
            assert len(decoded) > 60  # from the only keyframe on, for each window
        decoded.clear()
    assert said[0] == said[1]


def test_an_encoder_that_mixes_frames_does_not_encode_once(saved, model, clips):
    arm = Arm(residency="resident", schedule="parallel", encode_once=True)
    with pytest.raises(AtomError, match=r"encode_once=true: the encoder of model=small mixes"):
        session(saved, model, clips, arm)


def broken_clip(folder):
    path = folder / "broken.mp4"
    path.write_text("no video")
    return Clip("toy", "test", "broken", path)


@pytest.mark.parametrize("residency", ["resident", "reload_input"])
def test_a_broken_clip_fails_alone_and_stays_in_the_gallery(
    saved, model, clips, tmp_path, residency
):
    whole, _ = session(saved, model, clips, Arm(residency=residency, schedule="sequential"))
    gallery = [clips[0], broken_clip(tmp_path), *clips[1:]]
    for schedule in SCHEDULES:
        answers, spans = session(saved, model, gallery, Arm(residency=residency, schedule=schedule))
        for answer, unbroken in zip(answers, whole, strict=True):
            said = [(p.video_id, p.token_ids) for p in answer.predictions]
            assert said == [(p.video_id, p.token_ids) for p in unbroken.predictions]
            assert answer.ranking == unbroken.ranking
            (failure,) = answer.failures
            assert (failure.video_id, failure.stage) == ("broken", "decode_video")
            assert "broken.mp4" in failure.detail
            assert "\n" not in failure.detail
        assert "broken" not in {s.item for s in spans if s.stage in ("encode", "caption")}


def test_a_session_of_broken_clips_finds_nothing_and_ends(saved, model, tmp_path):
    answers, _ = session(
        saved, model, [broken_clip(tmp_path)], Arm(residency="resident", schedule="parallel")
    )
    assert [(a.ranking, len(a.failures)) for a in answers] == [((), 1)] * PROMPTS


class Fake:
    """A module that says `text` of every clip, until it raises `error` at its `at`th call."""

    def __init__(self, error=None, at=0, text="said"):
        self.network = type("Network", (), {})()
        self.error, self.at, self.said, self.calls = error, at, text, 0

    def __call__(self, frames):
        self._count()
        return VisualTokens(frames.flatten(2).float())

    def generate(self, visual, prompt, settings):
        self._count()
        return [Generated((1,), -1.0, -1.0, (-1.0,), self.said)] * visual.clips

    def _count(self):
        self.calls += 1
        if self.error is not None and self.calls == self.at:
            raise self.error

    def release(self):
        del self.network


def fake_runtime(model, schedule, *, encoder=None, decoder=None):
    made = {"encoder": encoder or Fake(), "decoder": decoder or Fake()}
    loaders = {name: ModuleLoader(lambda name=name: made.pop(name), 1) for name in made}
    arm = Arm(residency="resident", schedule=schedule)
    return Runtime(arm, loaders, Cpu(), model=model, settings=GenerationSettings())


TORCH_SAYS = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4611 bytes"


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("role", ["encoder", "decoder"])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(TORCH_SAYS)])
def test_no_memory_ends_the_session_after_the_captions_before(
    model, clips, tmp_path, schedule, role, error
):
    kept = []
    runtime = fake_runtime(model, schedule, **{role: Fake(error, at=2)})
    gallery = [clips[0], broken_clip(tmp_path), *clips[1:]]
    with pytest.raises(MemoryError, match=f"no memory left for the {role} at 'clip1'"):  # noqa: SIM117
        with runtime:
            for outcome in runtime.caption(gallery):
                kept.append(outcome.video_id)
    assert kept == ["clip0", "broken"]
    assert runtime.status == "oom"


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_an_error_of_a_module_is_no_clips_failure(model, clips, schedule, role):
    runtime = fake_runtime(model, schedule, **{role: Fake(ValueError("odd"), at=3)})
    kept = []
    with pytest.raises(ValueError, match="odd"), runtime:
        kept.extend(o.video_id for o in runtime.caption(clips[:2]))
        kept.extend(o.video_id for o in runtime.caption(clips[2:]))
    assert kept == ["clip0", "clip1"]
    assert runtime.status == "failed"


def test_leaving_a_session_ends_an_iteration_that_somebody_holds(model, clips):
    runtime = fake_runtime(model, "parallel")
    with runtime:
        held = runtime.caption(clips * 50)
        assert next(held).caption == "said"
    assert [t.name for t in threading.enumerate() if t.name == "encoder"] == []
    assert list(held) == []
    assert runtime.status == "ok"


class Module:
    def release(self):
        pass


def test_a_script_decoder_of_its_own_only_where_co_resident():
    for residency, count in (("resident", 1), ("co_resident", 2)):
        made = []
        loader = ModuleLoader(lambda made=made: made.append(1) or Module(), 7)
        store = ModuleStore(residency, {"decoder": loader}, Timeline(), Cpu())
        for role in (CAPTION_DECODER, SCRIPT_DECODER, CAPTION_DECODER):
            store.call(role, "x", lambda module: None)
        assert len(made) == count


def test_two_threads_in_one_module_release_it_once():
    """Under `reload_input`: whoever is last, as a stage may use the decoder beside the decoder."""
    made, inside, both = [], [], threading.Barrier(2)
    loader = ModuleLoader(lambda: made.append(Module()) or made[-1], 1)
    store = ModuleStore("reload_input", {"decoder": loader}, timeline := Timeline(), Cpu())

    def work(module):
        inside.append(module)
        both.wait(5)

    workers = [
        threading.Thread(target=store.call, args=(role, "x", work))
        for role in (CAPTION_DECODER, SCRIPT_DECODER)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(5)
    assert inside == made * 2
    assert len(made) == 1
    assert [s.stage for s in timeline.spans()] == ["load", "release"]


@pytest.mark.parametrize("names", [("decoder",), ("budget", "budget")])
def test_stages_have_names_of_their_own(model, names):
    stages = []
    for name in names:
        stage = EveryOther()
        stage.name = name
        stages.append(stage)
    arm = Arm(residency="resident", schedule="parallel")
    with pytest.raises(AtomError, match="each needs a name of its own"):
        Runtime(arm, {}, Cpu(), model=model, settings=GenerationSettings(), visual_stages=stages)


@pytest.mark.parametrize("key", ["queue", "threads_alone", "threads_beside"])
def test_an_arm_without_a_thread_or_a_place_in_the_queue_is_refused(key):
    with pytest.raises(AtomError, match=rf"runtime\.{key}=0"):
        Arm(residency="resident", schedule="parallel", **{key: 0})


def test_too_little_memory_for_a_module_is_running_out_of_it():
    def read():
        raise OutOfMemory("loading model.safetensors needs 9 MiB and 1 MiB are available")

    store = ModuleStore("resident", {"encoder": ModuleLoader(read, 1)}, Timeline(), Cpu())
    with pytest.raises(MemoryError, match="needs 9 MiB"):
        store.call(ENCODER, "x", lambda module: None)


class Counting(Cpu):
    """A device that says what it was asked."""

    def __init__(self):
        self.asked = []

    @contextmanager
    def stream(self):
        self.asked.append("lane")
        yield

    def synchronize(self):
        self.asked.append("wait")

    def empty_cache(self):
        self.asked.append("give back")


def test_a_load_waits_for_the_device_and_a_release_gives_memory_back():
    device = Counting()
    store = ModuleStore("reload_input", {"encoder": ModuleLoader(Module, 1)}, Timeline(), device)
    store.call(ENCODER, "x", lambda module: device.asked.append("work"))
    assert device.asked == ["lane", "wait", "work", "give back"]


def test_every_stage_works_in_a_lane_and_waits(saved, model, clips):
    device = Counting()
    loaders = module_loaders(
        EagerEngine(), Checkpoint(saved), TRAINED, model, device, embedder="embedded"
    )
    arm = Arm(residency="resident", schedule="sequential", threads_alone=1)
    settings = GenerationSettings(max_new_tokens=4, forbid_end=True)
    with Runtime(arm, loaders, device, model=model, settings=settings) as runtime:
        list(runtime.caption(clips[:1]))
        runtime.write("a red ball", settings, stage="script", item="x")
        runtime.ask(clips[0], "a red ball", settings)
        runtime.embed(["a red ball"], "x")
    # Loads of three modules; encode and caption; script; encode and answer; embed.
    assert device.asked.count("lane") == device.asked.count("wait") == 3 + 2 + 1 + 2 + 1
    assert device.asked[:2] == ["lane", "wait"]


def test_a_module_that_outlives_its_release_is_a_defect():
    kept = []
    loader = ModuleLoader(lambda: EmbedderModule(type("Network", (), {})()), 1)
    store = ModuleStore("reload_input", {"encoder": loader}, Timeline(), Cpu())
    with pytest.raises(RuntimeError, match="encoder: the network is still referenced"):
        store.call(ENCODER, "x", lambda module: kept.append(module.network))


class EveryOther:
    """A stage that keeps every second visual token, and calls a module of its own for it."""

    name = "every_other"

    def loaders(self, device):
        return {"router": ModuleLoader(Router, 5)}

    def __call__(self, runtime, batch, prompt):
        self.prompt = prompt
        return runtime.run(Role("router"), self.name, batch.item, lambda r: r(batch.visual))

    def example(self, visual):
        return VisualTokens(visual.tokens[:, ::2])


class Router(Module):
    def __call__(self, visual):
        return VisualTokens(visual.tokens[:, ::2])


class Counted(Fake):
    """A decoder that says how many visual tokens it was given, and for how many clips."""

    def generate(self, visual, prompt, settings):
        said = f"{visual.count} tokens, {visual.clips} clips"
        return [Generated((1,), -1.0, -1.0, (-1.0,), said)] * visual.clips


@pytest.mark.parametrize("residency", ["resident", "reload_input"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_stage_between_encoder_and_decoder_has_a_lane_and_modules(
    model, clips, tmp_path, schedule, residency
):
    stage = EveryOther()
    loaders = {
        "encoder": ModuleLoader(Fake, 1),
        "decoder": ModuleLoader(Counted, 1),
        **stage.loaders(Cpu()),
    }
    arm = Arm(residency=residency, schedule=schedule)
    with Runtime(
        arm, loaders, Cpu(), model=model, settings=GenerationSettings(), visual_stages=[stage]
    ) as runtime:
        outcomes = list(runtime.caption([clips[0], broken_clip(tmp_path), *clips[1:]]))
        assert stage.prompt == model.prompt
        answer = runtime.ask(clips[0], "which ball", GenerationSettings())
        assert stage.prompt == "which ball"
    kept = -(-model.encoder.frames // 2)  # the fake's token is a frame
    assert answer.text == f"{kept} tokens, 1 clips"
    assert [o.caption for o in outcomes if isinstance(o, Prediction)] == [answer.text] * CLIPS
    spans = [s for s in runtime.timeline.spans() if s.stage == "every_other"]
    lane = "every_other" if schedule == "parallel" else "MainThread"
    assert [(s.module, s.lane) for s in spans] == [("router", lane)] * CLIPS + [
        ("router", "MainThread")
    ]
    many = 1 if residency == "resident" else CLIPS + 1
    assert loads(runtime.timeline.spans())["router"] == many


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_batches_caption_as_single_clips_do(saved, model, clips, tmp_path, schedule):
    gallery = [clips[0], broken_clip(tmp_path), *clips[1:]]
    loaders = module_loaders(
        EagerEngine(), Checkpoint(saved), TRAINED, model, Cpu(), embedder="embedded"
    )
    arm = Arm(residency="resident", schedule=schedule, threads_alone=1)
    settings = GenerationSettings(max_new_tokens=6, forbid_end=True)

    def captions(batch_size):
        with Runtime(arm, loaders, Cpu(), model=model, settings=settings) as runtime:
            outcomes = list(runtime.caption(gallery, batch_size=batch_size))
        spans = runtime.timeline.spans()
        return outcomes, [s.item for s in spans if s.stage == "encode"]

    single, items = captions(1)
    assert items == ["clip0", "clip1", "clip2"]
    pairs, items = captions(2)
    assert items == ["clip0 +1", "clip1 +1"]
    assert [o.video_id for o in pairs] == [c.video_id for c in gallery]
    assert isinstance(pairs[1], Failure)
    for one, other in zip(single, pairs, strict=True):
        if isinstance(one, Prediction):
            assert one.token_ids == other.token_ids
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)


def test_a_clip_that_is_known_to_be_missing_is_not_read(model, clips):
    gone = replace(clips[0], video_id="gone", status="missing", detail="not on this disk")
    with fake_runtime(model, "sequential") as runtime:
        (outcome,) = runtime.caption([gone])
    assert outcome == Failure("gone", "decode_video", "not on this disk")
    assert [s.stage for s in runtime.timeline.spans()] == ["decode_video"]
