"""The runner and its jobs: built once for all test files and workers, run here or emulated."""

from pathlib import Path

import numpy as np
import pytest
from exported_models import exported_checkpoint, in_this_process, of_the_run
from filelock import FileLock

from atom_repro.data.toy.dataset import write_video
from atom_repro.datatypes import Clip
from atom_repro.device.architecture import Architecture
from atom_repro.device.cpu import Cpu
from atom_repro.hosts import runner, toolchain
from atom_repro.hosts.bundle import runner_bundle
from atom_repro.models.generation import GenerationSettings
from atom_repro.runtime.setup import Setup

HERE, ARM64 = Architecture.of_this_machine(), Architecture.AARCH64


def needs_tools(architecture=HERE):
    """A mark that skips tests where the runner cannot be built, or what is built cannot run."""
    missing = toolchain.missing_tools(architecture) or architecture.missing_emulator
    return pytest.mark.skipif(missing is not None, reason=str(missing))


def built(tmp_path_factory, architecture=HERE):
    """The program and its bundle."""
    base = of_the_run(tmp_path_factory)
    with FileLock(base / f"runner-{architecture}.lock"):
        folder = base / "runner"
        return runner.build_runner(folder, architecture), runner_bundle(folder, architecture)


def setup_of(model, quantiser, tmp_path_factory, **generation):
    """A small model with random weights, exported."""
    return Setup(
        model=model, dataset=None, engine=in_this_process(), quantiser=quantiser, visual_stages=(),
        device=Cpu(), checkpoint=exported_checkpoint(model, quantiser, tmp_path_factory),
        generation=GenerationSettings(**generation), embedder="embedded", seed=0,
        random_weights=True, components={},
    )  # fmt: skip


def made_clips(model, folder: Path):
    """Clips of noise, as large as the model wants them."""
    size = model.encoder.image_size
    clips = []
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (12, size, size, 3), dtype=np.uint8)
        write_video(folder / f"{i}.mp4", pixels, 4)
        clips.append(Clip("toy", "test", f'clip "{i}"', folder / f"{i}.mp4"))
    return clips


def run(program, folder, setup, clips, arms, **options):
    """The traces of a program, or of a bundle's start, one for each arm."""
    nonce = runner.write_job(folder, setup, clips, arms, **options)
    runner.run_job(program, folder)
    return runner.read_results(folder / runner.RESULTS, nonce, len(arms))
