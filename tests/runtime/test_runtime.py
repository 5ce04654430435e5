"""Every arm runs one code: same tokens, and reads exactly what its residency says."""

import itertools

import numpy as np
import pytest

from atom_repro.data.video_file import write_video
from atom_repro.datatypes import AtomError, Clip
from atom_repro.engines.checkpoints import Checkpoint
from atom_repro.models.generation import GenerationSettings
from atom_repro.pipelines import clip_search
from atom_repro.runtime.loaders import module_loaders
from atom_repro.runtime.residency import RESIDENCIES, Loader, ModuleStore
from atom_repro.runtime.runtime import Arm, Runtime
from atom_repro.runtime.schedule import SCHEDULES
from atom_repro.runtime.timeline import Timeline

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
    pipeline = clip_search.build(
        name="retrieval",
        session=kind,
        prompts=["a red ball", "two boats"][:PROMPTS],
        most=10,
        least_similarity=-1.0,
    )
    loaders = module_loaders(Checkpoint(saved), "fp32", model, embedder="embedded")
    settings = GenerationSettings(max_new_tokens=6, forbid_end=True)
    with Runtime(arm, loaders, prompt="", settings=settings) as runtime:
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
    sizes = Checkpoint(saved).bytes("fp32")
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


def test_a_broken_clip_ends_both_lanes_with_its_name(saved, model, clips, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    clips = [clips[0], Clip("toy", "test", "broken", broken), clips[1]]
    for schedule in SCHEDULES:
        with pytest.raises(AtomError, match=r"broken\.mp4"):
            session(saved, model, clips, Arm(residency="resident", schedule=schedule))


class Module:
    def __init__(self):
        self.network = type("Network", (), {})()


def test_a_script_decoder_of_its_own_only_where_co_resident():
    for residency, count in (("resident", 1), ("co_resident", 2)):
        made = []
        loader = Loader(lambda made=made: made.append(1) or Module(), 7)
        store = ModuleStore(residency, {"decoder": loader}, Timeline())
        for role in ("caption_decoder", "script_decoder", "caption_decoder"):
            store.call(role, "x", lambda module: None)
        assert len(made) == count


def test_a_module_that_outlives_its_release_is_a_defect():
    kept = []
    store = ModuleStore("reload_input", {"encoder": Loader(Module, 1)}, Timeline())
    with pytest.raises(RuntimeError, match="encoder is still referenced"):
        store.call("encoder", "x", lambda module: kept.append(module.network))


@pytest.mark.parametrize("wrong", [{"residency": "forever"}, {"schedule": "eager"}])
def test_an_arm_that_does_not_exist_is_named(wrong):
    (key, value), *_ = wrong.items()
    with pytest.raises(AtomError, match=f"{key} '{value}' is none of"):
        Arm(**({"residency": "resident", "schedule": "parallel"} | wrong))
