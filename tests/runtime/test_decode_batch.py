"""Decode batching: clips share decoding steps, and nothing of what they say changes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from conftest import spoil

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.module_files import TRAINED
from atom_repro.data.toy.dataset import write_video
from atom_repro.datatypes import AtomError, Clip, Failure
from atom_repro.device.cpu import Cpu
from atom_repro.engines.eager import EagerEngine
from atom_repro.engines.modules import DecoderModule
from atom_repro.models.generation import GenerationSettings
from atom_repro.runtime.residency import module_loaders
from atom_repro.runtime.runtime import Arm, Runtime


class Hosted(EagerEngine):
    """Decoders behind the host of exported ones, their graphs run by PyTorch."""

    def load_decoder(self, folder, model, quantiser=TRAINED, device=None):
        loaded = super().load_decoder(folder, model, quantiser)
        network, export = loaded.network, model.decoder_export
        tables = {name: network.get_parameter(name).__getitem__ for name in export.tables}
        methods = {m.name: m.module for m in export.methods(network)}
        hosted = export.host(network.config, tables, methods)
        return DecoderModule(hosted, model, loaded.tokenizer, loaded.weights)


@pytest.fixture
def clips(tmp_path):
    made = []
    for i in range(7):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
        path = tmp_path / f"clip{i}.mp4"
        write_video(path, pixels, 4)
        made.append(Clip("toy", "test", f"clip{i}", path))
    made[3].path.write_bytes(b"no video")
    return made


def captions(saved, model, clips, arm, engine=None, **settings):
    loaders = module_loaders(
        engine or Hosted(), Checkpoint(saved), TRAINED, model, Cpu(), embedder="embedded"
    )
    settings = GenerationSettings(beams=3, max_new_tokens=8, **settings)
    with Runtime(arm, loaders, Cpu(), model=model, settings=settings) as runtime:
        return list(runtime.caption(clips)), runtime.timeline.spans()


@pytest.mark.parametrize("forbid_end", [True, False])
def test_every_arm_says_the_same_in_the_same_order(saved, model, clips, forbid_end):
    arm = Arm(residency="resident", schedule="sequential")
    expected, _ = captions(saved, model, clips, arm, EagerEngine(), forbid_end=forbid_end)
    assert isinstance(expected[3], Failure)
    for residency, schedule, size in itertools.product(
        ("resident", "reload_stage", "reload_input"), ("sequential", "parallel"), (1, 3, 9)
    ):
        arm = Arm(residency=residency, schedule=schedule, decode_batch=size)
        found, spans = captions(saved, model, clips, arm, forbid_end=forbid_end)
        assert [without_log_prob(o) for o in found] == [without_log_prob(o) for o in expected]
        shared = {s.item for s in spans if s.stage == "caption" and s.item.endswith("clips")}
        if residency == "reload_input" or size == 1:
            assert not shared
        elif forbid_end and schedule == "sequential":
            assert f"{min(size, 6)} clips" in shared
        lanes = {s.lane for s in spans if s.stage == "encode"}
        assert lanes == ({"encoder"} if schedule == "parallel" else {"MainThread"})


@pytest.mark.parametrize("module", ["encoder", "decoder"])
def test_captions_of_weights_that_are_not_finite_are_refused(saved, model, clips, module):
    spoil(saved / "fp32" / module)
    for size in (1, 3):
        arm = Arm(residency="resident", schedule="sequential", decode_batch=size)
        with pytest.raises(AtomError, match=r"not finite; weights in .*fp32 are damaged, train"):
            captions(saved, model, clips, arm)


def without_log_prob(outcome):
    return outcome if isinstance(outcome, Failure) else replace(outcome, log_prob=0.0)


def test_outcomes_come_as_soon_as_their_turn_allows(saved, model, clips):
    arm = Arm(residency="resident", schedule="sequential", decode_batch=2)
    loaders = module_loaders(
        Hosted(), Checkpoint(saved), TRAINED, model, Cpu(), embedder="embedded"
    )
    settings = GenerationSettings(beams=2, max_new_tokens=5, forbid_end=True)
    with Runtime(arm, loaders, Cpu(), model=model, settings=settings) as runtime:
        outcomes = runtime.caption(clips)
        next(outcomes)
        encoded = [s for s in runtime.timeline.spans() if s.stage == "encode"]
        assert len(encoded) == 2  # the third clip was not needed for the first caption
        outcomes.close()


@pytest.mark.parametrize("size", [1, 3])
def test_the_decoder_is_loaded_while_the_first_clip_is_encoded(saved, model, clips, size):
    arm = Arm(residency="resident", schedule="parallel", decode_batch=size)
    expected, spans = captions(saved, model, clips, arm)
    found, ahead = captions(saved, model, clips, replace(arm, load_ahead=True))
    assert [without_log_prob(o) for o in found] == [without_log_prob(o) for o in expected]
    # Without it, the decoder is loaded for the first clip, which is encoded by then.
    assert [s.item for s in decoder_loads(spans)] == ["clip0"]
    assert [s.item for s in decoder_loads(ahead)] == ["ahead"]
    turns = replace(arm, schedule="sequential", load_ahead=True)
    assert [s.item for s in decoder_loads(captions(saved, model, clips, turns)[1])] == ["clip0"]


def decoder_loads(spans):
    return [s for s in spans if (s.stage, s.module) == ("load", "decoder")]


def test_an_engine_whose_clips_cannot_join_says_so(saved, model, clips):
    arm = Arm(residency="resident", schedule="sequential", decode_batch=2)
    with pytest.raises(AtomError, match=r"runtime\.decode_batch needs .* engine=executorch"):
        captions(saved, model, clips, arm, EagerEngine())
    with pytest.raises(AtomError, match=r"runtime\.decode_batch=0: must be at least 1"):
        Arm(residency="resident", schedule="sequential", decode_batch=0)
