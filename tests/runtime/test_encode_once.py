"""Frames that several clips have are encoded once; captions are those of each clip by itself."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TEXTS

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.module_files import TRAINED, save_decoder, save_encoder
from atom_repro.datatypes import Clip, Failure
from atom_repro.device.cpu import Cpu
from atom_repro.engines.eager import EagerEngine
from atom_repro.models import smolvlm2
from atom_repro.models.generation import GenerationSettings
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.runtime.residency import module_loaders
from atom_repro.runtime.runtime import Arm, Runtime
from atom_repro.video.file import write_video

FRAMES, FPS = 4, 4


@pytest.fixture(scope="module")
def smol(tmp_path_factory):
    """A small SmolVLM2 with random weights, and its checkpoint."""
    model = smolvlm2.build(
        name="smol",
        prompt="",
        encoder={
            "frames": FRAMES, "image_size": 16, "patch_size": 8, "width": 32, "layers": 1,
            "heads": 4, "mlp_width": 64, "shuffle": 2,
        },
        decoder={
            "vocabulary": 300, "width": 32, "layers": 1, "heads": 4, "kv_heads": 2,
            "head_width": 8, "mlp_width": 64, "rope_theta": 1e4, "max_positions": 64,
        },
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("smol") / "ck"
    torch.manual_seed(0)
    encoder, decoder = model.make_encoder(), model.make_decoder()
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    tokenizer = Tokenizer.train(TEXTS * 3, 300, model.specials)
    save_encoder(folder / "fp32/encoder", model, encoder, TRAINED, "random")
    save_decoder(folder / "fp32/decoder", model, decoder, tokenizer, TRAINED, "random")
    return model, Checkpoint(folder)


def windows(path, starts, length_s=8.0):
    return [
        Clip("toy", "test", f"{path.stem}@{s}", path, start_s=s, end_s=s + length_s) for s in starts
    ]


@pytest.fixture
def clips(tmp_path):
    """Windows of half a window's stride of one video, a broken clip, and one of another."""
    made = []
    for name, seconds in (("a", 24), ("b", 8)):
        pixels = np.random.default_rng(seconds).integers(
            0, 256, (seconds * FPS, 16, 16, 3), dtype=np.uint8
        )
        write_video(tmp_path / f"{name}.mp4", pixels, FPS)
        starts = (0.0, 4.0, 8.0, 12.0, 16.0) if name == "a" else (0.0,)
        made += windows(tmp_path / f"{name}.mp4", starts)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    return [*made[:3], *windows(tmp_path / "broken.mp4", (0.0,)), *made[3:]]


def captions(smol, clips, arm, batch_size=1):
    model, checkpoint = smol
    loaders = module_loaders(EagerEngine(), checkpoint, TRAINED, model, Cpu(), embedder="embedded")
    settings = GenerationSettings(beams=2, max_new_tokens=6, forbid_end=True)
    with Runtime(arm, loaders, Cpu(), model=model, settings=settings) as runtime:
        outcomes = list(runtime.caption(clips, batch_size=batch_size))
        return outcomes, [s for s in runtime.timeline.spans() if s.stage == "encode"]


def rounded(outcomes):
    return [
        o if isinstance(o, Failure) else replace(o, log_prob=round(o.log_prob, 3)) for o in outcomes
    ]


def test_captions_are_the_same_and_each_frame_is_encoded_once(smol, clips):
    alone, calls = captions(smol, clips, Arm(residency="resident", schedule="sequential"))
    assert isinstance(alone[3], Failure)
    assert len({o.token_ids for o in alone if not isinstance(o, Failure)}) > 3
    assert len(calls) == 6
    for residency, schedule, size in itertools.product(
        ("resident", "reload_input"), ("sequential", "parallel"), (1, 3)
    ):
        arm = Arm(residency=residency, schedule=schedule, encode_once=True)
        together, calls = captions(smol, clips, arm, size)
        assert rounded(together) == rounded(alone)
        # 12 frames of the first video and 4 of the second, 4 a call
        assert len(calls) == 4


def test_frames_off_a_grid_are_encoded_as_ever(smol, clips):
    path = clips[0].path
    off = windows(path, (0.0, 3.1, 9.7))
    arm = Arm(residency="resident", schedule="sequential")
    alone, calls = captions(smol, off, arm)
    together, others = captions(smol, off, replace(arm, encode_once=True))
    assert rounded(together) == rounded(alone)
    assert len(others) == len(calls) == 3
    short = [replace(clips[0], end_s=0.4), replace(clips[0], end_s=0.2)]  # two frames, repeated
    alone, _ = captions(smol, short, arm)
    together, calls = captions(smol, short, replace(arm, encode_once=True))
    assert rounded(together) == rounded(alone)
    assert len(calls) == 1


def test_no_clip_and_none_that_can_be_read(smol, clips):
    arm = Arm(residency="resident", schedule="sequential", encode_once=True)
    assert captions(smol, [], arm) == ([], [])
    (failure,), calls = captions(smol, [clips[3]], arm)
    assert isinstance(failure, Failure)
    assert calls == []
