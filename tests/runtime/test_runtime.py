"""Every arm runs one code: same tokens, and reads exactly what its residency says."""

import itertools
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.module_files import TRAINED
from atom_repro.datatypes import Clip, OutOfMemory
from atom_repro.device.cpu import Cpu
from atom_repro.engines.eager import EagerEngine, EmbedderModule
from atom_repro.models.generation import Generated, GenerationSettings
from atom_repro.pipelines import search
from atom_repro.runtime.residency import RESIDENCIES, ModuleLoader, ModuleStore, module_loaders
from atom_repro.runtime.runtime import Arm, Runtime
from atom_repro.runtime.schedule import SCHEDULES
from atom_repro.runtime.timeline import Timeline
from atom_repro.video.file import write_video

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
    with Runtime(arm, loaders, Cpu(), prompt="", settings=settings) as runtime:
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

        def wrapped(self, *arguments):
            used.append(torch.get_num_threads())
            return work(self, *arguments)

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

    def __init__(self, model, error=None, at=0, text="said"):
        self.network, self.model = type("Network", (), {})(), model
        self.error, self.at, self.said, self.calls = error, at, text, 0

    def __call__(self, given, *_):
        self.calls += 1
        if self.error is not None and self.calls == self.at:
            raise self.error
        return given if len(_) == 0 else [Generated((1,), -1.0, -1.0)]

    def text(self, generated):
        return self.said

    def release(self):
        del self.network


def fake_runtime(model, schedule, *, encoder=None, decoder=None):
    made = {"encoder": encoder or Fake(model), "decoder": decoder or Fake(model)}
    loaders = {name: ModuleLoader(lambda name=name: made.pop(name), 1) for name in made}
    arm = Arm(residency="resident", schedule=schedule)
    return Runtime(arm, loaders, Cpu(), prompt="", settings=GenerationSettings())


TORCH_SAYS = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4611 bytes"


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("role", ["encoder", "decoder"])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(TORCH_SAYS)])
def test_no_memory_ends_the_session_after_the_captions_before(
    model, clips, tmp_path, schedule, role, error
):
    kept = []
    runtime = fake_runtime(model, schedule, **{role: Fake(model, error, at=2)})
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
    runtime = fake_runtime(model, schedule, **{role: Fake(model, ValueError("odd"), at=3)})
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
        for role in ("caption_decoder", "script_decoder", "caption_decoder"):
            store.call(role, "x", lambda module: None)
        assert len(made) == count


def test_too_little_memory_for_a_module_is_running_out_of_it():
    def read():
        raise OutOfMemory("loading model.safetensors needs 9 MiB and 1 MiB are available")

    store = ModuleStore("resident", {"encoder": ModuleLoader(read, 1)}, Timeline(), Cpu())
    with pytest.raises(MemoryError, match="needs 9 MiB"):
        store.call("encoder", "x", lambda module: None)


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
    store.call("encoder", "x", lambda module: device.asked.append("work"))
    assert device.asked == ["lane", "wait", "work", "give back"]


def test_every_stage_works_in_a_lane_and_waits(saved, model, clips):
    device = Counting()
    loaders = module_loaders(
        EagerEngine(), Checkpoint(saved), TRAINED, model, device, embedder="embedded"
    )
    arm = Arm(residency="resident", schedule="sequential", threads_alone=1)
    settings = GenerationSettings(max_new_tokens=4, forbid_end=True)
    with Runtime(arm, loaders, device, prompt="", settings=settings) as runtime:
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
        store.call("encoder", "x", lambda module: kept.append(module.network))
