"""Config schemas (dataclasses) with their defaults; YAML selects and overrides them.

Hydra rejects unknown keys and values of another type. `Any` marks a code group: a node with a
`_target_`, whose schema is its builder's signature (see `composition`).
"""

import functools
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf


@dataclass
class PathsConfig:
    """Folders: `work` holds reproducible files (videos, checkpoints, journals); `results` the
    records, the paper's data and the tables."""

    work: str = MISSING
    results: str = MISSING


@dataclass
class ScaleConfig:
    """Sizes of data, training and measurement: `tiny`, `small`, `systems`, `paper`; and `smoke`,
    which no table shows. With `random_weights` a command that does not evaluate text initialises
    missing weights randomly. A training has `max_steps` of captions after `image_steps` of single
    frames.

    `job_clips` and `repeats` are those of a latency measurement, `prompt_counts` and
    `session_repeats` of sessions; `requests` are the scripts that `eval.tasks` scores, on as many
    `long_videos` as the generated data set has; `workers` are the processes of a training.
    """

    name: str = MISSING
    train_clips: int = MISSING
    validation_clips: int = MISSING
    test_clips: int = MISSING
    long_videos: int = MISSING
    image_steps: int = 0
    max_steps: int = MISSING
    validation_every: int = MISSING
    bootstrap_draws: int = MISSING
    job_clips: int = MISSING
    repeats: int = MISSING
    requests: int = MISSING
    prompt_counts: list[int] = MISSING
    session_repeats: int = MISSING
    endurance_clips: int = MISSING
    workers: int = 1
    random_weights: bool = False


@dataclass
class GenerationConfig:
    """Text generation (paper section 5.1: 4 beams, 23 new tokens). See `GenerationSettings`."""

    beams: int = 4
    max_new_tokens: int = 23
    length_penalty: float = 1.0
    forbid_end: bool = False
    min_new_tokens: int = 0
    length_rule: str = "power"
    finished: str = "leave"
    fixed_steps: bool = False


@dataclass
class TrainConfig:
    """Training on captions and, optionally, on text tasks.

    `start` is a checkpoint folder (fp32/encoder and fp32/decoder) to start from; empty for random
    weights, for which only generated data suffice.

    A step is `batch_size * accumulate` clips, over all processes together. With `epochs` set it
    ends after that many passes over all captions, otherwise after `max_steps`; it validates
    every `validation_every` steps, 0 for once an epoch. `word_weight` weighs the word loss (see
    `CaptioningModel`). `precision` is `bf16`, `fp32`, or `auto`: bf16 where the processor computes
    in it.

    `components` maps components of the model (see its family) to `full` training (the default),
    `frozen`, or `lora` of `lora_rank`; checkpoints hold merged weights. `gradient_checkpointing`
    recomputes blocks in the backward pass; `shard` shards parameters, gradients and optimiser
    states over processes (FSDP).

    The first `image_steps` steps, before those of captions, train the encoder's stem on single
    frames, `batch_size` times the frames of a clip, at `image_learning_rate` at most; none with
    `start`, or where the stem is no convolutional one.

    `optimiser` is `muon`, for the matrices of hidden layers, with AdamW for the rest, or `adamw`,
    for which the default `learning_rate` is too high (tiny scale had 2e-3).
    `schedule` is `warmup_cosine` (to zero; warm-up in steps) or `released` (to
    `floor_learning_rate`; warm-up in iterations, `accumulate` per step), and
    `decay_rule` is `matrices` or `released`: see `optimisation`. `visual_learning_rate` is that
    of the visual encoder with its temporal modules, null for `learning_rate`. `clip_norm` 0 clips
    nothing.

    Every `text_every` steps, `text_batch_size` rows of text tasks and `text_questions` rows of
    questions about clips are added, if the model writes text and the data set has such tasks.
    Such a row has about `text_words` words, each of its examples 1 to `text_captions` captions,
    fewer in the first `text_easy_steps` steps; `text_mix` has the relative frequency of each task,
    and `text_weight` the weight of their loss.

    A micro-batch has `captions_per_clip` of a clip's captions, and one of `candidates_per_segment`
    decoded frames of each segment. A resumable state is saved every `checkpoint_every` steps.
    `epoch0_quirk` repeats what the released schedule does in its first epoch (see `optimisation`).

    `threads` are those of all `workers`, processes that share a step's rows on the cores of this
    computer (see `training.workers`); the result is that of one.
    """

    start: str = ""
    max_steps: int = MISSING
    epochs: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    captions_per_clip: int = 2
    word_weight: float = 2.0
    text_every: int = 1
    text_batch_size: int = 8
    text_questions: int = 2
    text_weight: float = 1.0
    text_words: int = 150
    text_captions: int = 6
    text_easy_steps: int = 300
    text_mix: dict[str, float] = field(
        default_factory=lambda: {
            "script": 2.0, "scene_summary": 1.0, "video_summary": 1.0, "answer": 1.0,
        }
    )  # fmt: skip
    components: dict[str, str] = field(default_factory=dict)
    lora_rank: int = 8
    lora_alpha: float = 16.0
    gradient_checkpointing: bool = False
    shard: bool = False
    image_steps: int = 0
    image_learning_rate: float = 2.0e-2
    optimiser: str = "muon"
    learning_rate: float = 5.0e-3
    visual_learning_rate: float | None = None
    schedule: str = "warmup_cosine"
    warmup_steps: int = 50
    floor_learning_rate: float = 0.0
    epoch0_quirk: bool = False
    weight_decay: float = 0.05
    decay_rule: str = "matrices"
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    clip_norm: float = 1.0
    precision: str = "auto"
    validation_every: int = MISSING
    validation_clips: int = 100
    candidates_per_segment: int = 4
    checkpoint_every: int = 100
    workers: int = 1
    threads: int = 2


@dataclass
class RuntimeConfig:
    """Runtime settings shared by all arms of a comparison.

    `queue` bounds the clips that are encoded and not yet captioned. torch threads: `threads_alone`
    for a module while the other waits, `threads_beside` for each while both run; `threads` is
    `fixed`, or `calibrate`, which chooses those of both from their times. `decode_batch`
    clips share the steps of the decoder, where the engine can (executorch). With `load_ahead` the
    decoder is loaded while the first clip is encoded, under the parallel schedule. With
    `decode_once` windows of one video that overlap share their decoded frames, and with
    `encode_once` their encoded ones, where the model's encoder sees each frame by itself.
    """

    queue: int = 2
    threads: str = "fixed"
    threads_alone: int = 2
    threads_beside: int = 1
    decode_batch: int = 1
    load_ahead: bool = False
    decode_once: bool = True
    encode_once: bool = False


@dataclass
class CheckpointConfig:
    """Checkpoint folder of the modules: empty for the one that `train.finetune` names by model,
    data set, scale and seed."""

    folder: str = ""


@dataclass
class CommandConfig:
    """Settings of every command."""

    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass
class RecordedConfig(CommandConfig):
    """A command that writes records. `force` runs it even if a record with its key exists;
    `dry_run` prints what it would do, and does nothing (see `study.plan`).

    WORK names settings whose product is the amount of work, for which RECORDS, the names of its
    stages, tell how long it takes.
    """

    WORK: ClassVar[tuple[str, ...]] = ()
    RECORDS: ClassVar[tuple[str, ...]] = ()

    seed: int = 0
    force: bool = False
    dry_run: bool = False


@dataclass
class SetupConfig(CommandConfig):
    """A command that runs the modules of one model, in one precision, by one engine, on one device
    (see `runtime.setup.Setup`); `visual_stages` work between encoder and decoder."""

    scale: ScaleConfig = field(default_factory=ScaleConfig)
    model: Any = MISSING
    dataset: Any = MISSING
    engine: Any = MISSING
    quant: Any = MISSING
    visual_stages: Any = MISSING
    device: Any = MISSING
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    seed: int = 0


@dataclass
class FinetuneConfig(RecordedConfig):
    """`train.finetune`. `sweep` is the name of the sweep that the training belongs to."""

    WORK: ClassVar[tuple[str, ...]] = ("train.max_steps", "train.batch_size", "train.accumulate")

    scale: ScaleConfig = field(default_factory=ScaleConfig)
    model: Any = MISSING
    dataset: Any = MISSING
    augmentation: Any = MISSING
    train: TrainConfig = field(default_factory=TrainConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    sweep: str = ""


@dataclass
class SweepCommand:
    """Command of each sweep point: `python -m module` with the configuration `primary`."""

    module: str = MISSING
    primary: str = MISSING


@dataclass
class SweepConfig(CommandConfig):
    """`train.sweep`: `command` for every combination of the values in `grid`. `axes` maps each axis
    to the command's key; `fixed` are overrides of every point."""

    command: SweepCommand = field(default_factory=SweepCommand)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)
    dry_run: bool = False


@dataclass
class RetrievalConfig(SetupConfig, RecordedConfig):
    """`eval.retrieval`: retrieval of the clips of `protocol` by their captions. `on_bad` handles a
    broken video: `fail`, `count` as a miss, or `drop`."""

    WORK: ClassVar[tuple[str, ...]] = ("scale.test_clips",)

    protocol: Any = MISSING
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    on_bad: str = "fail"
    batch_size: int = 25
    bootstrap_draws: int = MISSING
    embedder: str = "embedded"


@dataclass
class CaptionConfig(SetupConfig, RecordedConfig):
    """`eval.caption`: captions of the clips of `protocol` against their references.

    `from_predictions` scores a file of predictions without loading a model; `java` is a Java
    runtime for METEOR, empty to search for one."""

    WORK: ClassVar[tuple[str, ...]] = ("scale.test_clips",)

    protocol: Any = MISSING
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    on_bad: str = "fail"
    batch_size: int = 25
    bootstrap_draws: int = MISSING
    from_predictions: str = ""
    java: str = ""


@dataclass
class LatencyConfig(SetupConfig, RecordedConfig):
    """`device_bench.latency`: the pipeline under every arm, interleaved. `limits` measures the
    device's rates in the same run, with `limits_s` seconds for each kernel and size. With `minutes`
    rounds go on for so long, whatever `repeats` says. `setting` names the setting of Table 5 that
    the run belongs to."""

    WORK: ClassVar[tuple[str, ...]] = ("residencies", "schedules", "repeats", "job_clips")

    pipeline: Any = MISSING
    host: Any = MISSING
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    residencies: list[str] = field(default_factory=list)
    schedules: list[str] = field(default_factory=list)
    job_clips: int = MISSING
    repeats: int = MISSING
    minutes: float = 0.0
    setting: str = ""
    limits: bool = False
    limits_s: float = 0.2
    embedder: str = "embedded"


@dataclass
class CompareConfig(SetupConfig, RecordedConfig):
    """`device_bench.compare`: the pipeline in one arm under every one of `variants`, interleaved.
    A variant is a list of overrides of this command's other settings; `only` names those to run,
    the first of which the others are compared with. The job's clips are windows of `window_s`
    seconds every `stride_s` seconds; 0 leaves clips whole. `limits` as in latency."""

    WORK: ClassVar[tuple[str, ...]] = ("variants", "repeats", "job_clips")

    pipeline: Any = MISSING
    host: Any = MISSING
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    residency: str = "resident"
    schedule: str = "parallel"
    variants: dict[str, list[str]] = field(default_factory=dict)
    only: list[str] = field(default_factory=list)
    job_clips: int = MISSING
    window_s: float = 0.0
    stride_s: float = 0.0
    repeats: int = MISSING
    limits: bool = False
    limits_s: float = 0.2
    embedder: str = "embedded"


@dataclass
class PipelineConfig(SetupConfig):
    """`eval.pipeline`: one pipeline on a folder of videos. Empty `index` and `output` mean the
    work folder; `dataset` is what the weights were trained on. `drop_missing` deletes the captions
    of videos that are no longer in the folder, which are kept otherwise: a drive may be away."""

    pipeline: Any = MISSING
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    residency: str = "resident"
    schedule: str = "parallel"
    videos: str = ""
    prompt: str = ""
    index: str = ""
    output: str = ""
    drop_missing: bool = False
    embedder: str = "embedded"


@dataclass
class TasksConfig(SetupConfig, RecordedConfig):
    """`eval.tasks`: scripts, answers, summaries and moments against the ground truth of the
    generated data. `pool` is the number of candidate clips of a request or search; `elsewhere` are
    prompts about what the data never shows, to set the similarity threshold."""

    WORK: ClassVar[tuple[str, ...]] = ("requests",)

    assembly: Any = MISSING
    questions: Any = MISSING
    summary: Any = MISSING
    localisation: Any = MISSING
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    requests: int = MISSING
    questions_a_clip: int = 1
    pool: int = 12
    elsewhere: list[str] = field(default_factory=list)
    batch_size: int = 25
    embedder: str = "embedded"


@dataclass
class SessionsConfig(SetupConfig, RecordedConfig):
    """`device_bench.sessions`. `prompt_counts` are the session lengths that are reported."""

    WORK: ClassVar[tuple[str, ...]] = (
        "sessions",
        "residencies",
        "schedules",
        "prompt_counts",
        "job_clips",
        "repeats",
    )

    pipeline: Any = MISSING
    host: Any = MISSING
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    sessions: list[str] = field(default_factory=list)
    residencies: list[str] = field(default_factory=list)
    schedules: list[str] = field(default_factory=list)
    prompt_counts: list[int] = field(default_factory=list)
    job_clips: int = MISSING
    repeats: int = MISSING
    embedder: str = "embedded"


@dataclass
class EnduranceConfig(SetupConfig, RecordedConfig):
    """`device_bench.endurance`: `clips` through one session, one in `broken_every` unreadable;
    memory is sampled every `sample_every` clips, without the first `warmup_share` of samples."""

    WORK: ClassVar[tuple[str, ...]] = ("clips",)

    host: Any = MISSING
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    residency: str = "resident"
    schedule: str = "parallel"
    clips: int = MISSING
    broken_every: int = 100
    warmup_share: float = 0.2
    sample_every: int = 5


@dataclass
class StorageConfig(RecordedConfig):
    """`device_bench.storage`: one model's modules in each of `quants`."""

    WORK: ClassVar[tuple[str, ...]] = ("quants",)

    scale: ScaleConfig = field(default_factory=ScaleConfig)
    model: Any = MISSING
    quants: dict[str, Any] = field(default_factory=dict)


@dataclass
class PeersConfig(RecordedConfig):
    """`device_bench.peers`: a model's modules in each of `peers`, `rounds` times, with `threads`.
    `only` names some of the peers. A step has `batches` of clips and beams behind a prompt of
    `prefix` positions, and `allocated` positions for generated tokens."""

    WORK: ClassVar[tuple[str, ...]] = ("peers", "rounds")

    scale: ScaleConfig = field(default_factory=ScaleConfig)
    model: Any = MISSING
    device: Any = MISSING
    peers: dict[str, Any] = field(default_factory=dict)
    rounds: int = MISSING
    threads: int = MISSING
    only: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    prefix: int = MISSING
    allocated: int = MISSING
    batches: list[Any] = field(default_factory=list)
    limits_s: float = MISSING


@dataclass
class TrainingStepConfig(RecordedConfig):
    """`device_bench.training_step`: training steps of up to `most_clips` clips, each `steps` times
    (the first is a warm-up), with captions of `caption_tokens` tokens (paper 5.1: 23). `limits_s`
    is the time for each kernel when the machine's rates are measured."""

    WORK: ClassVar[tuple[str, ...]] = ("steps",)

    scale: ScaleConfig = field(default_factory=ScaleConfig)
    model: Any = MISSING
    device: Any = MISSING
    train: TrainConfig = field(default_factory=TrainConfig)
    caption_tokens: int = 23
    most_clips: int = 256
    steps: int = 6
    limits_s: float = 0.2


@dataclass
class ContentionConfig(RecordedConfig):
    """`device_bench.contention`: trainings by each number of `workers` beside each number of `busy`
    processes, in `rounds`. `training` are the overrides of `train.finetune`; its first
    `warmup_steps` steps count for nothing. `cores` are those that this process may use."""

    WORK: ClassVar[tuple[str, ...]] = ("rounds", "busy", "workers")

    scale: ScaleConfig = field(default_factory=ScaleConfig)
    training: list[str] = MISSING
    busy: list[int] = field(default_factory=lambda: [0, 1, 2])
    workers: list[int] = field(default_factory=lambda: [1, 2])
    rounds: int = 2
    warmup_steps: int = 2
    cores: int = 2


@dataclass
class StandinConfig(CommandConfig):
    """`device_bench.standin`: a stand-in device at a port of loopback, with its files in a
    folder. `architecture` is x86_64 or aarch64, None for this machine's."""

    port: int = MISSING
    folder: str = MISSING
    architecture: str | None = None


@dataclass
class DeviceSweepConfig(CommandConfig):
    """`device_bench.sweep`: `command` on all of `hosts` at once, in each of `quants`, for each of
    `pipelines`; those of `ablated` under every one of `settings` too, lists of overrides by name,
    of which `default` has none. `auto` is every device that adb sees, and `standin` may be named
    several times. `fixed` are overrides of every point. With `clean_up` what was sent to the
    devices is removed from them once every point is done."""

    command: SweepCommand = field(default_factory=SweepCommand)
    hosts: list[str] = field(default_factory=list)
    quants: list[str] = field(default_factory=list)
    pipelines: list[str] = field(default_factory=list)
    ablated: list[str] = field(default_factory=list)
    settings: dict[str, list[str]] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)
    clean_up: bool = False
    dry_run: bool = False


@dataclass
class ReportConfig(CommandConfig):
    """`eval.report`. `paper` is the folder of the paper's table cells."""

    paper: str = MISSING


@dataclass
class StudyStage:
    """A command of a study. `per_precision` runs it once for each precision; `then_report` writes
    the tables after each run, so that its row can be read while the study goes on; `overrides`
    are the stage's own; those of the command line come after them. The stage is left out where the
    command line overrides one of `unless`, or `package` is not installed."""

    module: str = MISSING
    primary: str = MISSING
    per_precision: bool = False
    then_report: bool = False
    overrides: list[str] = field(default_factory=list)
    unless: list[str] = field(default_factory=list)
    package: str = ""


@dataclass
class ReproduceConfig(CommandConfig):
    """`eval.reproduce`: the whole study. Overrides are routed to the stages that have their key;
    `quant` restricts the run to one precision."""

    precisions: list[str] = field(default_factory=list)
    stages: list[StudyStage] = field(default_factory=list)
    dry_run: bool = False


@dataclass
class DoctorConfig(CommandConfig):
    """`eval.doctor`: what the tiny study and the full-size runs need."""

    tiny_disk_gb: float = MISSING
    tiny_memory_gb: float = MISSING
    systems_disk_gb: float = MISSING
    systems_memory_gb: float = MISSING


@dataclass
class NotebooksConfig(CommandConfig):
    """`eval.notebooks`: the folder of the notebooks to run."""

    folder: str = MISSING


@dataclass
class HumanCaptionsConfig(RecordedConfig):
    """`eval.human_captions`: human captions under every named protocol, or those of `only`."""

    WORK: ClassVar[tuple[str, ...]] = ("bootstrap_draws",)
    RECORDS: ClassVar[tuple[str, ...]] = ("oracle_caption", "oracle_retrieval")

    captioner: Any = MISSING
    datasets: dict[str, Any] = field(default_factory=dict)
    caption: dict[str, Any] = field(default_factory=dict)
    retrieval: dict[str, Any] = field(default_factory=dict)
    only: list[str] = field(default_factory=list)
    embedder: str = "embedded"
    bootstrap_draws: int = 2000
    java: str = ""


@dataclass
class TextEmbedderConfig(RecordedConfig):
    """`eval.text_embedder` (Table 7). `batch_size` is sentence-transformers' own, and matters:
    dynamic int8 takes its scales from the batch."""

    WORK: ClassVar[tuple[str, ...]] = ("recipes",)

    captioner: Any = MISSING
    datasets: dict[str, Any] = field(default_factory=dict)
    retrieval: Any = MISSING
    recipes: dict[str, Any] = field(default_factory=dict)
    embedder: str = "embedded"
    batch_size: int = 32
    bootstrap_draws: int = 2000


@dataclass
class DataCheckConfig(CommandConfig):
    """`eval.data_check`. `decode` reads frames of every existing video."""

    datasets: dict[str, Any] = field(default_factory=dict)
    protocols: dict[str, Any] = field(default_factory=dict)
    decode: bool = False


@dataclass
class SourcesConfig:
    """Released weights: a folder, a file or a hub id. `whole` fills both modules; else `video`
    fills the encoder and `text` the decoder. `tokenizer` is a folder with tokenizer.json;
    empty means beside the decoder's weights."""

    video: str = ""
    text: str = ""
    whole: str = ""
    tokenizer: str = ""


@dataclass
class ConvertConfig:
    """`train.convert`. `target` is the checkpoint folder to write; `seed` is for weights that
    no source has; `force` replaces an existing checkpoint."""

    model: Any = MISSING
    sources: SourcesConfig = field(default_factory=SourcesConfig)
    target: str = ""
    seed: int = 0
    force: bool = False


@dataclass
class AuditConfig(CommandConfig):
    """`eval.audit`."""


@dataclass
class TestAllConfig(CommandConfig):
    """`eval.test_all`. `tests` are test files or folders, `workers` the number run in parallel."""

    workers: int = MISSING
    tests: list[str] = MISSING


_SCHEMAS = {
    "finetune": FinetuneConfig,
    "sweep": SweepConfig,
    "convert": ConvertConfig,
    "caption": CaptionConfig,
    "retrieval": RetrievalConfig,
    "latency": LatencyConfig,
    "compare": CompareConfig,
    "device_sweep": DeviceSweepConfig,
    "sessions": SessionsConfig,
    "endurance": EnduranceConfig,
    "pipeline": PipelineConfig,
    "tasks": TasksConfig,
    "peers": PeersConfig,
    "storage": StorageConfig,
    "standin": StandinConfig,
    "training_step": TrainingStepConfig,
    "contention": ContentionConfig,
    "report": ReportConfig,
    "reproduce": ReproduceConfig,
    "audit": AuditConfig,
    "human_captions": HumanCaptionsConfig,
    "text_embedder": TextEmbedderConfig,
    "data_check": DataCheckConfig,
    "doctor": DoctorConfig,
    "notebooks": NotebooksConfig,
    "test_all": TestAllConfig,
}


def work_of(command: str) -> tuple[str, ...]:
    """Settings whose product is the amount of work of the command `conf/<command>.yaml`."""
    schema = _SCHEMAS[command]
    return schema.WORK if issubclass(schema, RecordedConfig) else ()


def records_of(command: str) -> tuple[str, ...]:
    """Stages of the records that the command `conf/<command>.yaml` writes."""
    schema = _SCHEMAS[command]
    return (schema.RECORDS or (command,)) if issubclass(schema, RecordedConfig) else ()


# Mappings by command to which overrides may add keys; Hydra would reject new ones.
OPEN_MAPPINGS = {
    "finetune": ("train.components",),
    "compare": ("variants",),
    "device_sweep": ("settings",),
}


@functools.cache
def register() -> None:
    """Register the schemas with Hydra: `<name>_schema` for entry points, `schema` in a group. In
    YAML `${cores:n}` is 1/n of the cores that this process may use."""
    OmegaConf.register_new_resolver(
        "cores", lambda share: max(1, len(os.sched_getaffinity(0)) // share), replace=True
    )
    store = ConfigStore.instance()
    for name, schema in _SCHEMAS.items():
        node = OmegaConf.structured(schema)
        for key in OPEN_MAPPINGS.get(name, ()):
            OmegaConf.set_struct(OmegaConf.select(node, key), False)
        store.store(name=f"{name}_schema", node=node)
    store.store(group="scale", name="schema", node=ScaleConfig)
    store.store(group="runtime", name="schema", node=RuntimeConfig)
