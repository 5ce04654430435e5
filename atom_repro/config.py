"""Run settings: their types, their check at composition, and the wrapper of every entry point.

Two kinds of config group. Data groups (`scale`, `paths`, `train`, `generation`, `runtime`, …) are
the dataclasses below: Hydra refuses a misspelt or wrongly typed key. Code groups (`model`,
`dataset`, `quant`, `protocol`, …) are YAML with one `_target_` and its keyword arguments: Hydra
refuses a misspelt key, and `compose` refuses a value of another type than the file's own.

Nothing here imports torch: `--help` and a refused override answer at once.
"""

import difflib
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atom_repro.datatypes import AtomError

CONF = Path(__file__).resolve().parents[1] / "conf"

Main = Callable[[Any], None]
Built = TypeVar("Built")


@dataclass
class PathsConfig:
    """`work` holds what can be made again (videos, checkpoints, journals); `results` the records,
    the paper's data and the tables."""

    work: str = MISSING
    results: str = MISSING


@dataclass
class ScaleConfig:
    """How much of everything: `tiny`, `systems`, `paper`, and `smoke`, which no table shows."""

    name: str = MISSING
    train_clips: int = MISSING
    validation_clips: int = MISSING
    test_clips: int = MISSING
    long_videos: int = MISSING
    max_steps: int = MISSING
    validation_every: int = MISSING
    bootstrap_draws: int = MISSING
    job_clips: int = MISSING
    repeats: int = MISSING


@dataclass
class GenerationConfig:
    """Paper section 5.1: 4 beams, 23 new tokens."""

    beams: int = 4
    max_new_tokens: int = 23
    length_penalty: float = 1.0
    forbid_end: bool = False


@dataclass
class TrainConfig:
    """One optimiser for both modules; the learning rate warms up linearly and decays to zero by
    a cosine over `max_steps`. A step is `batch_size * accumulate` clips. `shift` is the largest
    move of a clip in pixels; `word_weight` weighs the word loss (see `CaptioningModel`)."""

    max_steps: int = MISSING
    batch_size: int = 32
    accumulate: int = 1
    captions_per_clip: int = 2
    shift: int = 2
    word_weight: float = 2.0
    learning_rate: float = 2.0e-3
    warmup_steps: int = 50
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    precision: str = "bf16"
    validation_every: int = MISSING
    validation_clips: int = 100
    candidates_per_segment: int = 4
    checkpoint_every: int = 100
    threads: int = 2


@dataclass
class RuntimeConfig:
    """What all arms of a comparison share.

    `queue` bounds the clips that are encoded and not yet captioned. Threads are torch's, for a
    module while the other waits, and for each while both work.
    """

    queue: int = 2
    threads_alone: int = 2
    threads_beside: int = 1


@dataclass
class CheckpointConfig:
    """Where the modules lie: empty means what `train.finetune` of this configuration wrote."""

    folder: str = ""


@dataclass
class FinetuneConfig:
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    model: Any = MISSING
    dataset: Any = MISSING
    train: TrainConfig = field(default_factory=TrainConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    seed: int = 0
    force: bool = False


@dataclass
class EvalConfig:
    """`eval.caption` and `eval.retrieval`. `from_predictions` scores a file of predictions
    without loading a model."""

    scale: ScaleConfig = field(default_factory=ScaleConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    model: Any = MISSING
    dataset: Any = MISSING
    protocol: Any = MISSING
    quant: Any = MISSING
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    on_bad: str = "fail"
    batch_size: int = 25
    from_predictions: str = ""
    bootstrap_draws: int = MISSING
    java: str = ""
    embedder: str = "embedded"
    seed: int = 0
    force: bool = False


@dataclass
class PipelineConfig:
    """`device_bench.latency`: the pipeline under every arm, interleaved."""

    scale: ScaleConfig = field(default_factory=ScaleConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    model: Any = MISSING
    dataset: Any = MISSING
    quant: Any = MISSING
    pipeline: Any = MISSING
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    residencies: list[str] = field(default_factory=list)
    schedules: list[str] = field(default_factory=list)
    job_clips: int = MISSING
    repeats: int = MISSING
    embedder: str = "embedded"
    seed: int = 0
    force: bool = False


@dataclass
class ReportConfig:
    """`paper` is the folder of the paper's cells."""

    paths: PathsConfig = field(default_factory=PathsConfig)
    paper: str = MISSING


@dataclass
class StudyStage:
    """A command of a study; `per_precision` runs it once for each precision."""

    module: str = MISSING
    primary: str = MISSING
    per_precision: bool = False


@dataclass
class ReproduceConfig:
    """The whole study. Overrides that stages know are routed to them; `quant` narrows the run to
    one precision."""

    paths: PathsConfig = field(default_factory=PathsConfig)
    precisions: list[str] = field(default_factory=list)
    stages: list[StudyStage] = field(default_factory=list)


@dataclass
class DoctorConfig:
    paths: PathsConfig = field(default_factory=PathsConfig)
    tiny_disk_gb: float = MISSING
    tiny_memory_gb: float = MISSING


@dataclass
class NotebooksConfig:
    paths: PathsConfig = field(default_factory=PathsConfig)
    folder: str = MISSING


@dataclass
class OracleConfig:
    """`eval.oracle`: people's captions under every named protocol, or under those of `only`."""

    paths: PathsConfig = field(default_factory=PathsConfig)
    captioner: Any = MISSING
    datasets: dict[str, Any] = field(default_factory=dict)
    caption: dict[str, Any] = field(default_factory=dict)
    retrieval: dict[str, Any] = field(default_factory=dict)
    only: list[str] = field(default_factory=list)
    embedder: str = "embedded"
    bootstrap_draws: int = 2000
    java: str = ""
    seed: int = 0
    force: bool = False


@dataclass
class TextEmbedderConfig:
    """`eval.text_embedder` (Table 7). `batch_size` is sentence-transformers' own, and matters:
    dynamic int8 takes its scales from the batch."""

    paths: PathsConfig = field(default_factory=PathsConfig)
    captioner: Any = MISSING
    datasets: dict[str, Any] = field(default_factory=dict)
    retrieval: Any = MISSING
    recipes: dict[str, Any] = field(default_factory=dict)
    embedder: str = "embedded"
    batch_size: int = 32
    bootstrap_draws: int = 2000
    seed: int = 0
    force: bool = False


@dataclass
class DataCheckConfig:
    """`eval.data_check`. `decode` reads frames of every video that is there."""

    paths: PathsConfig = field(default_factory=PathsConfig)
    datasets: dict[str, Any] = field(default_factory=dict)
    protocols: dict[str, Any] = field(default_factory=dict)
    decode: bool = False


@dataclass
class AuditConfig:
    paths: PathsConfig = field(default_factory=PathsConfig)


_SCHEMAS = {
    "finetune": FinetuneConfig,
    "evaluate": EvalConfig,
    "latency": PipelineConfig,
    "report": ReportConfig,
    "reproduce": ReproduceConfig,
    "audit": AuditConfig,
    "oracle": OracleConfig,
    "text_embedder": TextEmbedderConfig,
    "data_check": DataCheckConfig,
    "doctor": DoctorConfig,
    "notebooks": NotebooksConfig,
}


@functools.cache
def register() -> None:
    """Make the schemas known to Hydra; `<name>_schema` for entry points, `schema` in a group."""
    store = ConfigStore.instance()
    for name, node in _SCHEMAS.items():
        store.store(name=f"{name}_schema", node=node)
    store.store(group="scale", name="schema", node=ScaleConfig)
    store.store(group="runtime", name="schema", node=RuntimeConfig)


def entry(primary: str) -> Callable[[Main], Callable[[], None]]:
    """Make `main(cfg)` a command whose configuration is `conf/<primary>.yaml`.

    Overrides are checked before Hydra starts, so that a mistake is one line naming the key; an
    `AtomError` from `main` is one line too. Exit status 1 for those, 130 after Ctrl-C.
    """

    def decorate(main: Main) -> Callable[[], None]:
        @functools.wraps(main)
        def command() -> None:
            arguments = sys.argv[1:]
            try:
                if all(_is_single_override(a) for a in arguments):
                    compose(primary, arguments)
            except AtomError as error:
                _refuse(error)
            # Threads that wait for work sleep rather than spin: on a machine with other load,
            # spinning costs a factor of 4 to 20. Read by OpenMP when torch is imported.
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            for name in ("torchao", "torch.utils._pytree"):
                logging.getLogger(name).addFilter(_says_something)
            register()
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=primary)(
                _guard(main)
            )()

        return command

    return decorate


def _says_something(record: logging.LogRecord) -> bool:
    # On import TorchAO names each CUDA library that a CPU build lacks, and torch the deprecation
    # of a call that TorchAO makes. Neither concerns what is run here.
    text = record.getMessage()
    return not ("Failed to load" in text or "register_constant()" in text)


def _guard(main: Main) -> Main:
    @functools.wraps(main)
    def guarded(cfg: Any) -> None:
        try:
            main(cfg)
        except AtomError as error:
            _refuse(error)
        except KeyboardInterrupt:
            sys.stderr.write(
                "\ninterrupted; finished work is kept, run the same command to go on\n"
            )
            sys.exit(130)

    return guarded


def _refuse(error: AtomError) -> None:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(1)


def _is_single_override(argument: str) -> bool:
    """False for Hydra's own flags and for sweeps, which Hydra checks job by job."""
    if argument.startswith("-"):
        return False
    try:
        parsed = OverridesParser.create().parse_overrides([argument])
    except HydraException:
        return True
    return not parsed[0].is_sweep_override()


def compose(primary: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration of one entry point, checked.

    Raises:
        AtomError: a key that does not exist, a value of the wrong type or an unknown choice, in
            one line with the nearest right one.
    """
    register()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose(primary, overrides=list(overrides))
            OmegaConf.to_container(cfg, resolve=True)
            _check_types(primary, overrides, cfg)
    except (HydraException, OmegaConfBaseException) as error:
        raise AtomError(_explain(primary, error)) from error
    return cfg


def _check_types(primary: str, overrides: Sequence[str], cfg: DictConfig) -> None:
    """Values given by hand must be of the type of the file's own value."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    choices = [o.input_line for o in parsed if (CONF / o.key_or_group.split("@")[0]).is_dir()]
    base = hydra.compose(primary, overrides=[c for c in choices if c])
    for override in parsed:
        key = override.key_or_group
        before = OmegaConf.select(base, key)
        after = OmegaConf.select(cfg, key)
        if override.is_delete() or override.is_add() or before is None or _alike(before, after):
            continue
        raise AtomError(
            f"{key}={override.value()!s} is {_kind(after)}; {key} takes {_kind(before)}"
            f" (such as {before})"
        )


def _alike(before: Any, after: Any) -> bool:
    if isinstance(before, bool) or isinstance(after, bool):
        return isinstance(before, bool) and isinstance(after, bool)
    if isinstance(before, float):
        return isinstance(after, int | float)
    if isinstance(before, DictConfig | ListConfig):
        return type(before) is type(after)
    return isinstance(after, type(before))


def _kind(value: Any) -> str:
    if isinstance(value, DictConfig):
        return "a group of keys"
    if isinstance(value, ListConfig):
        return "a list"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(type(value), "nothing" if value is None else type(value).__name__)


def _explain(primary: str, error: Exception) -> str:
    """One line out of Hydra's and OmegaConf's several."""
    chain: list[str] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(str(link))
        link = link.__cause__
    text = "\n".join(chain)
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"Key '([^']+)' (?:is not in struct|not in)", text
    )
    if unknown and ("not in" in text or "is not in struct" in text):
        return f"unknown key {unknown[1]}{nearest(unknown[1], keys(primary))}"
    choice = re.search(r"Could not find '([^/']+)/([^']+)'", text)
    if choice:
        options = sorted(p.stem for p in (CONF / choice[1]).glob("*.yaml"))
        listed = f"; {choice[1]} is one of {', '.join(options)}" if options else ""
        return f"unknown choice {choice[1]}={choice[2]}{listed}"
    group = re.search(r"Could not override '([^']+)'.*No match in the defaults list", text, re.S)
    if group:
        return f"{group[1]} is not a choice of this command; see --help"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    value = next((line for line in lines if line.startswith("Value ")), None)
    key = next((line.split(":", 1)[1].strip() for line in lines if "full_key:" in line), None)
    if value and key:
        return f"{key}: {value[0].lower()}{value[1:]}"
    return lines[0]


@functools.cache
def keys(primary: str) -> tuple[str, ...]:
    """Every dotted key of an entry point's configuration."""

    def walk(node: Any, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        return [
            key
            for name, child in node.items()
            for key in (f"{prefix}{name}", *walk(child, f"{prefix}{name}."))
        ]

    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return tuple(walk(OmegaConf.to_container(hydra.compose(primary), resolve=False), ""))


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint at the key that was meant, to end an error message with."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "; see --help for the keys of this command"


def build(node: DictConfig, returns: type[Built] | None = None) -> Built:
    """Call the `_target_` of a code group's node with its own keys, containers made plain."""
    made: Built = hydra.utils.instantiate(node, _convert_="all")
    if returns is not None and not isinstance(made, returns):
        raise AtomError(f"{node._target_} made a {type(made).__name__}, not a {returns.__name__}")
    return made


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The effective configuration, every reference resolved, as a record stores it."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}
