"""The C++ runner of exported modules (device_bench/runner): its build, its jobs, its results.

What a phone runs in place of the Python runtime. A job is a folder with everything that it reads:
frames as the Python runtime reads them, prompts as token ids, rotary rows. So both compute from the
same bytes, and the runner needs neither a video decoder nor a model's configuration.
"""

import hashlib
import importlib.util
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from atom_repro.datatypes import AtomError, Clip, Span
from atom_repro.device.memory import MemoryUse
from atom_repro.engines.executorch import exports
from atom_repro.engines.exporter import PROGRAM, TABLES
from atom_repro.models.generation import Generated
from atom_repro.models.text_decoder import TextDecoderConfig, rope_rows
from atom_repro.models.text_decoder_export import EMBEDDING
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.records.atomic import atomic_write
from atom_repro.records.provenance import ROOT
from atom_repro.runtime.captioning import read_clips
from atom_repro.runtime.runtime import Arm
from atom_repro.runtime.setup import Setup

SOURCE = ROOT / "device_bench/runner"
JOB, RESULTS = "job.json", "results.jsonl"
_RESIDENCIES = ("resident", "reload_stage", "reload_input")
_WORKSPACES = ("per_model", "global")


@dataclass(frozen=True)
class RunnerTrace:
    """What one session of the runner left: captions by clip id, spans, and its peak memory."""

    captions: Mapping[str, Generated]
    spans: Sequence[Span]
    memory_peak: MemoryUse


def build_runner(folder: Path) -> Path:
    """Build the runner for this machine, unless it is there already.

    Args:
        folder: of builds, each under a hash of its sources.

    Returns:
        The program.

    Raises:
        AtomError: no sources, no compiler or CMake, or it does not compile.
    """
    sources = sorted(SOURCE.glob("*"))
    if not sources:
        raise AtomError(f"the runner's sources are not at {SOURCE}; run from a checkout")
    found = importlib.util.find_spec("executorch")
    if found is None or not found.submodule_search_locations:
        raise AtomError("the runner is built against executorch; `pip install executorch==1.5.1`")
    if missing := [tool for tool in ("cmake", "g++") if shutil.which(tool) is None]:
        raise AtomError(f"{missing[0]} is missing; `apt install cmake g++`")
    package = Path(next(iter(found.submodule_search_locations)))
    contents = b"".join(path.read_bytes() for path in sources) + bytes(package)
    program = folder / hashlib.sha256(contents).hexdigest()[:16] / "runner"
    if program.is_file():
        return program
    with atomic_write(program.parent) as build:
        configure = [
            "cmake", "-S", str(SOURCE), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release",
            f"-Dexecutorch_DIR={package / 'share/cmake'}",
        ]  # fmt: skip
        for command in (configure, ["cmake", "--build", str(build)]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                log = folder / "build.log"
                log.write_text(done.stdout + done.stderr, encoding="utf-8")
                raise AtomError(f"the runner does not compile; {log} says why")
    return program


def write_job(
    folder: Path,
    setup: Setup,
    clips: Sequence[Clip],
    arms: Sequence[Arm],
    *,
    workspaces: str = "per_model",
) -> str:
    """Write a job: captions of clips, one session for each arm, in this order.

    Args:
        folder: where it may stay only for this run; exported modules are linked into it.
        arms: that share threads and queue.
        workspaces: `per_model`, or `global`, in which XNNPACK runs one module at a time.

    Returns:
        The nonce that ends its results.

    Raises:
        AtomError: what the runner cannot do, or a clip that cannot be read.
    """
    model, config = setup.model, setup.model.decoder
    _require(setup, arms, workspaces)
    assert isinstance(config, TextDecoderConfig)
    folder.mkdir(parents=True, exist_ok=True)
    of_module = exports(setup.checkpoint, setup.quantiser, model)
    files = {
        "encoder": (of_module["encoder"].path / PROGRAM, "encoder.pte"),
        "decoder": (of_module["decoder"].path / PROGRAM, "decoder.pte"),
        "tables": (of_module["decoder"].path / TABLES, "tables.safetensors"),
    }
    for source, name in files.values():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(source.resolve())
    cos, sin = rope_rows(config, torch.arange(config.max_positions))
    save_file({"cos": cos.contiguous(), "sin": sin.contiguous()}, folder / "rotary.safetensors")

    encoder = model.encoder
    listed = []
    for number, clip in enumerate(clips):
        batch = read_clips([clip], encoder)
        if batch.frames is None:
            raise AtomError(batch.failures[clip.video_id].detail)
        (folder / f"{number}.frames").write_bytes(batch.frames[0].numpy().tobytes())
        listed.append({"id": clip.video_id, "file": f"{number}.frames"})
    tokenizer = Tokenizer.load(setup.checkpoint.decoder(), model.specials)
    visual = VisualTokens(torch.zeros(1, encoder.visual_tokens, encoder.output_width))
    arm, nonce = arms[0], secrets.token_hex(12)
    job = {
        "nonce": nonce,
        "files": {name: file for name, (_, file) in files.items()}
        | {"rotary": "rotary.safetensors"},
        "embedding": EMBEDDING,
        "workspaces": workspaces,
        "decoder": {
            key: getattr(config, key)
            for key in ("layers", "heads", "kv_heads", "head_width", "width")
        },
        "generation": asdict(setup.generation),
        "frame_shape": [encoder.frames, 3, encoder.image_size, encoder.image_size],
        "clips": listed,
        "prompt": model.prompt_ids(tokenizer, model.prompt, visual=visual),
        "end_id": tokenizer.end_id,
        "bytes": {name: of_module[name].bytes for name in ("encoder", "decoder")},
        "queue": arm.queue,
        "threads_alone": arm.threads_alone,
        "threads_beside": arm.threads_beside,
        "sessions": [{"residency": a.residency, "schedule": a.schedule} for a in arms],
    }
    (folder / JOB).write_text(json.dumps(job, indent=1), encoding="utf-8")
    return nonce


def _require(setup: Setup, arms: Sequence[Arm], workspaces: str) -> None:
    if not isinstance(setup.model.decoder, TextDecoderConfig):
        raise AtomError(f"the runner has Llama decoders; model={setup.model.name} has another")
    if setup.visual_stages:
        raise AtomError("the runner has no stages between encoder and decoder; visual_stages=none")
    if workspaces not in _WORKSPACES:
        raise AtomError(f"workspaces={workspaces} is none of {', '.join(_WORKSPACES)}")
    for arm in arms:
        if arm.residency not in _RESIDENCIES:
            raise AtomError(
                f"the runner does not know residency={arm.residency}; choose of "
                f"{', '.join(_RESIDENCIES)}"
            )
        if arm.decode_batch != 1 or arm.load_ahead:
            raise AtomError(
                "the runner has neither runtime.decode_batch nor runtime.load_ahead; leave both"
            )


def run_job(program: Path, folder: Path) -> None:
    """Run a job on this machine; its results lie in the folder.

    Raises:
        MemoryError: too little memory.
        AtomError: it failed, with what it wrote.
    """
    with (folder / RESULTS).open("wb") as results:
        done = subprocess.run(
            [str(program.resolve()), JOB],
            cwd=folder,
            stdout=results,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    if done.returncode:
        message = " ".join(done.stderr.decode("utf-8", "replace").split())[-300:]
        if done.returncode in (3, -9):
            raise MemoryError(f"no memory left for the runner ({message}); free some")
        raise AtomError(f"the runner ended with status {done.returncode}: {message}")


def read_results(path: Path, nonce: str, sessions: int) -> list[RunnerTrace]:
    """Read what a run left, one trace for each session.

    Raises:
        AtomError: it is incomplete, or of another run.
    """
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break  # the run was cut off inside a line, and has no end either
    if not lines or lines[-1].get("kind") != "end" or lines[-1].get("nonce") != nonce:
        raise AtomError(f"{path} is incomplete, or of another run; run it again")
    return [
        _trace([line for line in lines if line.get("session") == number])
        for number in range(sessions)
    ]


def _trace(lines: Sequence[Mapping[str, Any]]) -> RunnerTrace:
    captions, spans, peak = {}, [], MemoryUse(0, 0)
    for line in lines:
        if line["kind"] == "caption":
            log_probs = tuple(line["token_log_probs"])
            captions[line["clip"]] = Generated(
                tuple(line["tokens"]), line["log_prob"], 0.0, log_probs
            )
        elif line["kind"] == "span":
            content = {k: v for k, v in line.items() if k not in ("kind", "session")}
            spans.append(Span(**content))
        elif line["kind"] == "memory":
            use = MemoryUse(line["anonymous"] + line["swapped"], line["file"])
            peak = peak.largest(use)
    return RunnerTrace(captions, spans, peak)
