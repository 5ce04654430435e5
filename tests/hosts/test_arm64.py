"""The arm64 runner gives what the others give, on an emulated processor and an empty system."""

import re

import pytest
from command import command
from conformance import INT8_TIE, TIE, Reference, reference
from exported_models import FP32, in_this_process, llama
from runner_jobs import ARM64, HERE, built, made_clips, needs_tools, run, setup_of

from atom_repro import config
from atom_repro.adb.connection import Connection
from atom_repro.adb.probe import device_facts
from atom_repro.adb.standin import StandIn
from atom_repro.datatypes import AtomError
from atom_repro.device.architecture import LAUNCHER, Architecture
from atom_repro.engines.eager import EagerEngine
from atom_repro.hosts import runner
from atom_repro.hosts.bundle import bundle_bytes
from atom_repro.hosts.device_runs import FOLDER, run_on_device
from atom_repro.quant import dynamic_activation
from atom_repro.records.provenance import ROOT
from atom_repro.runtime.captioning import read_clips
from atom_repro.runtime.runtime import Arm
from atom_repro.runtime.setup import Setup

pytest.importorskip("executorch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    needs_tools(),
    needs_tools(ARM64),
]
INT8 = dynamic_activation.build(weight_bits=8, group=0)
TOKENS = 12
ARMS = [
    Arm(residency=residency, schedule=schedule, threads_beside=1)
    for residency in ("resident", "reload_stage")
    for schedule in ("sequential", "parallel")
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    try:
        return built(tmp_path_factory, ARM64)[1]
    except AtomError as error:
        if "cannot be fetched" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The runner of this machine."""
    return built(tmp_path_factory)[0]


@pytest.fixture
def emulated(monkeypatch, tmp_path):
    """Whatever starts a bundle has it run by the emulator, whose system is an empty folder;
    returns the file that lists the system calls of the last one."""
    calls, launcher, system = (tmp_path / name for name in ("calls", "launcher", "system"))
    system.mkdir()
    command = f"{ARM64.emulation} -strace -D {calls} -L {system}"
    launcher.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    launcher.chmod(0o755)
    if not ARM64.is_native:
        monkeypatch.setenv(LAUNCHER, str(launcher))
    return calls


def of_model(quantiser, tmp_path_factory):
    """A setup of greedy search, and clips for it."""
    setup = setup_of(llama(), quantiser, tmp_path_factory, beams=1, max_new_tokens=TOKENS)
    return setup, made_clips(setup.model, tmp_path_factory.mktemp("videos"))


def tokens(trace):
    return {clip: generated.token_ids for clip, generated in trace.captions.items()}


def test_the_bundle_runs_with_nothing_but_itself(
    program, bundle, emulated, tmp_path, tmp_path_factory
):
    setup, clips = of_model(FP32, tmp_path_factory)
    native = run(program, tmp_path / "here", setup, clips, ARMS)
    traces = run(bundle / "run.sh", tmp_path / "there", setup, clips, ARMS)
    for trace, like in zip(traces, native, strict=True):
        assert tokens(trace) == tokens(like)
        assert [s.stage for s in trace.spans if s.lane == "encoder"] == [
            s.stage for s in like.spans if s.lane == "encoder"
        ]
    assert len(set(tokens(traces[0]).values())) > 1
    if ARM64.is_native:
        return
    opened = set(re.findall(r'open(?:at)?\((?:AT_FDCWD,)?"([^"]*)"', emulated.read_text()))
    own = {path for path in opened if path.startswith(f"{bundle}/")}
    assert {"runner", "libc.so.6", "libexecutorch.so"} <= {path.rpartition("/")[2] for path in own}
    of_job = {path for path in opened if "/" not in path}
    assert {"job.json", "encoder.pte", "decoder.pte", "0.frames"} <= of_job
    others = opened - own - of_job
    assert {path for path in others if not path.startswith(("/proc/", "/sys/"))} == set()


def test_the_readme_says_its_size(bundle):
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"For arm64 it is {bundle_bytes(bundle) / 1e6:.0f} MB" in text


def test_an_arm64_device_has_the_arm64_runner(
    program, bundle, tmp_path, tmp_path_factory, adb_port
):
    setup, clips = of_model(FP32, tmp_path_factory)
    (like,) = run(program, tmp_path / "here", setup, clips, ARMS[:1])
    job = tmp_path / "there"
    nonce = runner.write_job(job, setup, clips, ARMS[:1])
    with StandIn(tmp_path / "device", architecture=ARM64) as device:
        phone = Connection.open(device.address)
        assert phone.ask("uname -m") == "aarch64"
        assert Architecture.of(device_facts(phone).abi) is ARM64
        run_on_device(phone, bundle, job, every_s=0.1)
        assert device.local(f"{FOLDER}/runner/ld-linux-aarch64.so.1").is_file()
        phone.close()
    (trace,) = runner.read_results(job / runner.RESULTS, nonce, 1)
    assert tokens(trace) == tokens(like)
    # The same folder as another device has nothing of the first.
    with StandIn(tmp_path / "device") as device:
        phone = Connection.open(device.address)
        assert phone.ask("uname -m") == HERE
        phone.close()


def of_trained_model(quantiser, folder):
    """As `of_model`, of a model that has learnt something, and clips of its data set."""
    folders = [f"paths.work={folder}/work", f"paths.results={folder}/results"]
    small = ["scale=smoke", "model.encoder.layers=1", "model.decoder.layers=1", *folders]
    trained = command("train.finetune", *small, "train.max_steps=30", "train.threads=1")
    assert trained.returncode == 0, trained.stderr
    named = "none" if quantiser is FP32 else quantiser.recipe
    search = ["generation.beams=1", f"generation.max_new_tokens={TOKENS}"]
    overrides = ["engine=executorch", f"quant={named}", *search]
    setup = Setup.of(config.compose("latency", [*small, *overrides]))
    setup.dataset.prepare()
    setup.prepare_modules(for_quality=False)
    return setup, setup.dataset.clips("test")[:3]


@pytest.mark.long
@pytest.mark.parametrize("weights", ["random", "trained"])
@pytest.mark.parametrize("quantiser", [FP32, INT8], ids=["fp32", "8da8w"])
def test_all_engines_write_the_same(
    weights, quantiser, program, bundle, emulated, tmp_path, tmp_path_factory
):
    if weights == "trained":
        setup, clips = of_trained_model(quantiser, tmp_path)
    else:
        setup, clips = of_model(quantiser, tmp_path_factory)
    texts = {}
    for engine in (EagerEngine(), in_this_process()):
        encoder = engine.load_encoder(setup.checkpoint.encoder(quantiser), setup.model, quantiser)
        decoder = engine.load_decoder(setup.checkpoint.decoder(quantiser), setup.model, quantiser)
        texts[engine.name] = {
            clip.video_id: reference(
                decoder,
                encoder(read_clips([clip], setup.model.encoder).frames),
                setup.model.prompt,
                max_new_tokens=TOKENS,
            )
            for clip in clips
        }
        for module in (encoder, decoder):
            module.release()
    here = run(program, tmp_path / "here", setup, clips, ARMS)
    there = run(bundle / "run.sh", tmp_path / "there", setup, clips, ARMS)
    # Sums of another order are rounded to other int8 numbers now and then, and random weights leave
    # nearly all steps undecided.
    tie = TIE if quantiser is FP32 else INT8_TIE
    for trace, emulated_trace in zip(here, there, strict=True):
        assert {clip: r.tokens for clip, r in texts["executorch"].items()} == tokens(trace)
        if quantiser is FP32 or weights == "trained":
            assert tokens(emulated_trace) == tokens(trace)
        for clip, written in tokens(emulated_trace).items():
            assert texts["executorch"][clip].agrees(written, tie)
            assert texts["eager"][clip].agrees(written, tie)
    if quantiser is FP32:
        assert {clip: r.tokens for clip, r in texts["eager"].items()} == tokens(there[0])


def test_engines_may_part_at_a_tie_alone():
    text = Reference((5, 6, 7), (1.0, 1.0, TIE / 2, 1.0))
    assert text.agrees((5, 6, 7))
    assert text.agrees((5, 6, 9, 9))
    assert not text.agrees((5, 8, 7))
    assert not text.agrees((5,))
    assert not Reference((5, 6, 7), (1.0, 1.0, 1.0, 1.0)).agrees((5, 6, 9))
