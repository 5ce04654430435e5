"""The C++ runner of exported modules (device_bench/runner): its build, its jobs, its results.

What a phone runs in place of the Python runtime. A job is a folder with everything that it reads:
frames as the Python runtime reads them, prompts as token ids, rotary rows. So both compute from the
same bytes, and the runner needs neither a video decoder nor a model's configuration.
"""

import hashlib
import json
import os
import secrets
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer as FastTokenizer

from atom_repro.datatypes import AtomError, Clip, Span
from atom_repro.device.architecture import Architecture
from atom_repro.device.memory import MemoryUse
from atom_repro.engines.embedder_export import export_embedder
from atom_repro.engines.executorch import ExecutorchEngine, exports
from atom_repro.engines.exporter import PROGRAM, TABLES, Export
from atom_repro.hosts import toolchain
from atom_repro.hosts.runner_memory import runner_memory
from atom_repro.hosts.runner_text import write_unicode_table
from atom_repro.models.exported import FORMS
from atom_repro.models.generation import Generated, GenerationSettings
from atom_repro.models.text_decoder import TextDecoderConfig, rope_rows
from atom_repro.models.text_decoder_export import EMBEDDING
from atom_repro.models.text_embedder import source_folder
from atom_repro.models.tokenizer import TOKENIZER_FILE, Tokenizer
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.records.atomic import atomic_write
from atom_repro.records.provenance import ROOT
from atom_repro.runtime.captioning import read_clips
from atom_repro.runtime.runtime import Arm
from atom_repro.runtime.setup import Setup

SOURCE = ROOT / "device_bench/runner"
JOB, RESULTS = "job.json", "results.jsonl"
OUT_OF_MEMORY = 3  # the runner's exit status; see main.cpp
PER_MODEL = "per_model"
_WORKSPACES = (PER_MODEL, "global")


@dataclass(frozen=True)
class RunnerPipeline:
    """What the runner does with captions: a search, or a script of what a search finds.

    Attributes:
        session: `fresh` or `indexed`.
        prompts: each with the instruction that follows the captions in the prompt of its script.
        most_hits, least_similarity, same_similarity: as in `pipelines.captioned_clips.rank_clips`.
        script: of the script's generation; None for a search.
    """

    session: str
    prompts: Sequence[tuple[str, str]]
    most_hits: int
    least_similarity: float
    same_similarity: float
    script: GenerationSettings | None


@dataclass(frozen=True)
class RunnerAnswer:
    """What the runner answered to one prompt: captions in the order of their clips, the ids of its
    hits by descending similarity, the decoder's texts, and its times on the session's clock."""

    captions: Mapping[str, Generated]
    ranking: tuple[str, ...]
    texts: tuple[str, ...]
    start_s: float
    end_s: float


@dataclass(frozen=True)
class RunnerTrace:
    """What one session of the runner left: captions by clip id, of the first prompt where it had
    prompts; answers to prompts; spans; peak memory, and its parts (see `runner_memory`)."""

    captions: Mapping[str, Generated]
    answers: Sequence[RunnerAnswer]
    spans: Sequence[Span]
    memory_peak: MemoryUse
    memory: Mapping[str, Any]


@runtime_checkable
class RunsOnRunner(Protocol):
    """A pipeline that the runner can run."""

    def for_runner(self) -> RunnerPipeline:
        """What the runner has to do; raises AtomError where it cannot."""
        ...

    def from_runner(self, answers: Sequence[RunnerAnswer]) -> Sequence[Any]:
        """Its own results, of what the runner answered."""
        ...


def build_runner(folder: Path, architecture: Architecture | None = None) -> Path:
    """Build the runner, unless it is there already.

    Args:
        folder: of builds, each under a hash of its sources.
        architecture: of the processor that it is for; None for this machine's.

    Returns:
        The program.

    Raises:
        AtomError: no sources, no compiler or CMake, no ExecuTorch, or it does not compile.
    """
    architecture = architecture or Architecture.of_this_machine()
    sources = sorted(SOURCE.glob("*"))
    if not sources:
        raise AtomError(f"the runner's sources are not at {SOURCE}; run from a checkout")
    cross = SOURCE / f"{architecture}.cmake"
    if not architecture.is_native and not cross.is_file():
        raise AtomError(f"the runner for {architecture} is built on such machines only")
    if missing := toolchain.missing_tools(architecture):
        raise AtomError(f"the runner for {architecture} cannot be built: {missing}")
    package = toolchain.executorch_package(architecture, folder)
    contents = b"".join(path.read_bytes() for path in sources) + bytes(package.resolve())
    program = folder / hashlib.sha256(contents).hexdigest()[:16] / "runner"
    if program.is_file():
        return program
    with atomic_write(program.parent) as build:
        cmake = str(toolchain.cmake())
        configure = [
            cmake, "-S", str(SOURCE), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release",
            f"-Dexecutorch_DIR={package.resolve() / 'share/cmake'}",
        ]  # fmt: skip
        if not architecture.is_native:
            configure.append(f"-DCMAKE_TOOLCHAIN_FILE={cross}")
        compile_all = [cmake, "--build", str(build), "--parallel", str(os.cpu_count())]
        for command in (configure, compile_all):
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
    pipeline: RunnerPipeline | None = None,
    workspaces: str = PER_MODEL,
    packed: str = "",
) -> str:
    """Write a job: captions of clips and what a pipeline does with them, one session for each arm,
    in this order.

    Args:
        folder: where it may stay only for this run; exported modules are linked into it.
        arms: that share threads and queue.
        workspaces: `per_model`, or `global`, in which XNNPACK runs one module at a time.
        packed: a folder, as the runner sees it, in which packed weights are kept between loads;
            they are mapped then instead of packed again, and a first load writes them.

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
        "tokenizer": (setup.checkpoint.decoder() / TOKENIZER_FILE, TOKENIZER_FILE),
    }
    if pipeline is not None:
        of_module["embedder"] = export_embedder(
            setup.checkpoint.folder / "embedder", setup.embedder
        )
        files["embedder"] = (of_module["embedder"].path / PROGRAM, "embedder.pte")
        vocabulary = source_folder(setup.embedder) / TOKENIZER_FILE
        files["embedder_tokenizer"] = (vocabulary, f"embedder-{TOKENIZER_FILE}")
    for source, name in files.values():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(source.resolve())
    if not (folder / "unicode.txt").exists():
        write_unicode_table(folder / "unicode.txt")
    cos, sin = rope_rows(config, torch.arange(config.max_positions))
    save_file({"cos": cos.contiguous(), "sin": sin.contiguous()}, folder / "rotary.safetensors")

    encoder = model.encoder
    listed = []
    for number, clip in enumerate(clips):
        batch = read_clips([clip], encoder)
        if batch.frames is None:
            raise AtomError(batch.failures[clip.video_id].detail)
        (folder / f"{number}.frames").write_bytes(batch.frames[0].numpy().tobytes())
        listed.append(
            {"id": clip.video_id, "file": f"{number}.frames", "video": str(clip.path),
             "start_s": clip.start_s, "end_s": clip.end_s}
        )  # fmt: skip
    tokenizer = Tokenizer.load(setup.checkpoint.decoder(), model.specials)
    visual = VisualTokens(torch.zeros(1, encoder.visual_tokens, encoder.output_width))
    arm, nonce = arms[0], secrets.token_hex(12)
    job = {
        "nonce": nonce,
        "files": {name: file for name, (_, file) in files.items()}
        | {"rotary": "rotary.safetensors", "unicode": "unicode.txt"},
        "embedding": EMBEDDING,
        "workspaces": workspaces,
        "packed": f"{packed}/{_key(of_module.values())}" if packed else "",
        "decoder": {
            key: getattr(config, key)
            for key in ("layers", "heads", "kv_heads", "head_width", "width")
        },
        "generation": asdict(setup.generation),
        "frame_shape": [encoder.frames, 3, encoder.image_size, encoder.image_size],
        "clips": listed,
        "prompt": model.prompt_ids(tokenizer, model.prompt, visual=visual),
        "end_id": tokenizer.end_id,
        "bytes": {name: export.bytes for name, export in of_module.items()},
        "queue": arm.queue,
        "threads_alone": arm.threads_alone,
        "threads_beside": arm.threads_beside,
        "sessions": [{"residency": a.residency, "schedule": a.schedule} for a in arms],
    }
    if pipeline is not None:
        job["pipeline"] = _pipeline(pipeline, setup, tokenizer)
        job["embedder"] = _embedder_ids(files["embedder_tokenizer"][0]) | {
            "longest": of_module["embedder"].description()["longest"]
        }
    (folder / JOB).write_text(json.dumps(job, indent=1), encoding="utf-8")
    return nonce


def _key(of_modules: Iterable[Export]) -> str:
    """A name for what exported files become where they are loaded."""
    names = [export.path.name for export in of_modules]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _pipeline(pipeline: RunnerPipeline, setup: Setup, tokenizer: Tokenizer) -> dict[str, Any]:
    before, after = _around_text(setup, tokenizer)
    return {
        "session": pipeline.session,
        "prompts": [{"text": text, "instruction": then} for text, then in pipeline.prompts],
        "most_hits": pipeline.most_hits,
        "least_similarity": pipeline.least_similarity,
        "same_similarity": pipeline.same_similarity,
        "script": asdict(pipeline.script) if pipeline.script else None,
        "ids_before": before,
        "ids_after": after,
    }


def _around_text(setup: Setup, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids before and after the text of a prompt without video, such as a chat template's."""
    text = tokenizer.encode("captions:")
    ids = setup.model.prompt_ids(tokenizer, "captions:", visual=None)
    (start,) = (i for i in range(len(ids)) if ids[i : i + len(text)] == text)
    return ids[:start], ids[start + len(text) :]


def _embedder_ids(path: Path) -> dict[str, int]:
    """The ids that a text of the embedder begins and ends with."""
    begin, end = FastTokenizer.from_file(str(path)).encode("").ids[:2]
    return {"begin": begin, "end": end}


def _require(setup: Setup, arms: Sequence[Arm], workspaces: str) -> None:
    if not isinstance(setup.engine, ExecutorchEngine):
        raise AtomError("the runner runs exported modules; add engine=executorch")
    if not isinstance(setup.model.decoder, TextDecoderConfig):
        raise AtomError(f"the runner has Llama decoders; model={setup.model.name} has another")
    if setup.visual_stages:
        raise AtomError("the runner has no stages between encoder and decoder; visual_stages=none")
    if workspaces not in _WORKSPACES:
        raise AtomError(f"workspaces={workspaces} is none of {', '.join(_WORKSPACES)}")
    if setup.generation.fixed_steps or setup.engine.forms != FORMS:
        raise AtomError(
            "the runner ends captions where they end, and runs optimised graphs: leave "
            "generation.fixed_steps, engine.fused and engine.hoisted"
        )
    for arm in arms:
        if arm.threads_beside not in (1, arm.threads_alone):
            raise AtomError(
                f"the runner's modules have one thread or all {arm.threads_alone}; "
                f"runtime.threads_beside={arm.threads_beside} is neither"
            )
        if arm.decode_batch != 1 or arm.load_ahead:
            raise AtomError(
                "the runner has neither runtime.decode_batch nor runtime.load_ahead; leave both"
            )
        if arm.calibrates or arm.encode_once:
            raise AtomError(
                "the runner has neither runtime.threads=calibrate nor runtime.encode_once; "
                "leave both"
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
        if done.returncode in (OUT_OF_MEMORY, -9):
            raise MemoryError(f"no memory left for the runner ({message}); free some")
        raise AtomError(f"the runner ended with status {done.returncode}: {message}")


def read_results(path: Path, nonce: str, sessions: int) -> list[RunnerTrace]:
    """Read what a run left, one trace for each session.

    Raises:
        AtomError: it is incomplete, or of another run.
    """
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8").split("\n")[:-1]:
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
    captions: dict[int, dict[str, Generated]] = {0: {}}
    answers, spans, peak = list[RunnerAnswer](), list[Span](), MemoryUse(0, 0)
    other: dict[str, list[Mapping[str, Any]]] = {"memory": [], "peak": [], "end_of_session": []}
    for line in lines:
        if line["kind"] == "caption":
            captions.setdefault(line["prompt"], {})[line["clip"]] = Generated(
                tuple(line["tokens"]), line["log_prob"], 0.0, tuple(line["token_log_probs"]),
                line["text"],
            )  # fmt: skip
        elif line["kind"] == "answer":
            answers.append(
                RunnerAnswer(
                    captions.get(line["prompt"], {}), tuple(line["ranking"]),
                    tuple(line["texts"]), line["start_s"], line["end_s"],
                )
            )  # fmt: skip
        elif line["kind"] == "span":
            content = {k: v for k, v in line.items() if k not in ("kind", "session")}
            spans.append(Span(**content))
        elif line["kind"] == "memory":
            use = MemoryUse(line["anonymous"] + line["swapped"], line["file"])
            peak = peak.largest(use)
        if line["kind"] in other:
            other[line["kind"]].append(line)
    (end,) = other["end_of_session"]
    memory = runner_memory(spans, other["memory"], other["peak"], end["proportional"])
    return RunnerTrace(captions[0], answers, spans, peak, memory)
