"""Identity of a cell: what two records share if they are repeats of one measurement.

Declared here for every table. Records that differ in it stand in rows or sections of their own; of
those that share it one stands in the row. A record that fits no row is refused, and one that gave
way to a record with other settings is named, each with the reason (`tables/left_out.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atom_repro.records.component import with_component_names
from atom_repro.records.record import EMULATED, Record

FAMILIES = {"mplug2plus": "mPLUG2+", "mplug2": "mPLUG2", "smolvlm2": "SmolVLM2"}
TOY = "toy"
PROTOCOLS = {
    "msrvtt/caption-full": "MSR-VTT",
    "msvd/caption": "MSVD",
    "msrvtt/ret-1ka": "MSR-VTT",
    "msvd/ret-multi": "MSVD",
    "didemo/ret-paragraph": "DiDeMo",
}
# Groups that the identity has as fields, and settings that change no value of a cell, or only how
# many repeats and arms stand behind it.
_FIELDS = (
    "model", "dataset", "protocol", "quant", "engine", "visual_stages", "device", "host",
    "pipeline", "scale", "captioner", "datasets", "caption", "retrieval",
)  # fmt: skip
_WITHOUT_EFFECT = (
    "paths", "force", "dry_run", "hydra", "checkpoint", "java", "only", "bootstrap_draws",
    "repeats", "residencies", "schedules", "sessions", "prompt_counts", "limits", "limits_s",
    "most_clips", "steps", "clips", "busy", "workers", "warmup_steps", "sweep", "grid",
    "train.threads", "train.workers",
    "train.checkpoint_every", "scale.workers", "dataset.root", "rounds", "parts", "variants",
    "setting", "host.number", "host.serial",
    "host.folder", "host.models", "host.guard", "host.guard.celsius",
    "host.guard.battery_percent", "host.guard.deadline_s", "host.guard.every_s",
    "host.control.timeout_s", "host.control.idle_s", "host.control.look_s",
)  # fmt: skip
# Stages that judge texts.
_JUDGED = ("caption", "retrieval", "tasks")
# Stages whose seconds hold loads, of which there are two definitions.
_WITH_LOADS = ("latency", "compare", "sessions", "endurance")
# Stages whose assemblies must have written a script.
_WRITE_SCRIPTS = ("latency", "compare", "sessions")
# What the cost of a training step depends on, beside its clips.
_STEP_SETTINGS = (
    "captions_per_clip", "threads", "precision", "gradient_checkpointing", "components",
)  # fmt: skip
_DEFAULTS = {"engine": "eager", "host": "in_process"}


@dataclass(frozen=True)
class Identity:
    """What two records of one stage share if they are repeats of one measurement.

    Attributes:
        stage: of the records.
        data: data set, or the protocol where that is not the paper's.
        model: family (of texts) or name (of timings), with its `variant`.
        scale: of the run.
        machine: fingerprint.
        device: that computes.
        precision: recipe of the quantiser.
        pipeline: that is timed.
        part: where a run has several records, or a stage several kinds: an arm, a protocol, the
            configuration and clips of a training step, the variants of a comparison.
    """

    stage: str
    data: str
    model: str
    scale: str
    machine: str
    device: str
    precision: str
    pipeline: str = ""
    part: str = ""

    @classmethod
    def of(cls, record: Record) -> "Identity":
        judged = record.stage in _JUDGED
        return cls(
            stage=record.stage,
            data=dataset_name(record) if judged else _dataset(record),
            model=family(record) if judged else f"{_model_name(record)}{variant(record)}",
            # The clips of a training step are synthetic: no scale has a say in what it costs.
            scale="" if record.stage == "training_step" else str(record.data["scale"]),
            machine=record.machine.fingerprint,
            device=str(record.data.get("device", "cpu")),
            precision=precision_label(record),
            pipeline=str(record.config("pipeline.name") or record.values.get("pipeline", "")),
            part=_part(record),
        )


def _part(record: Record) -> str:
    values = record.values
    if record.stage == "endurance":
        return str(values.get("arm"))
    if record.stage == "compare":
        each = values.get("variants", {}).items()
        return "; ".join(f"{name}: {', '.join(of['overrides'])}" for name, of in each)
    if record.stage == "training_step":
        train = record.config("train") or {}
        kind = {key: train.get(key) for key in _STEP_SETTINGS}
        return f"{kind}, {record.config('caption_tokens')} tokens, {values.get('clips')} clips"
    if record.stage.startswith("oracle_") or record.stage == "text_embedder":
        return str(record.data["protocol"])
    return ""


def select(records: Iterable[Record], stage: str) -> dict[Identity, Record]:
    """The record of a stage that stands for each identity, in the order in which they first appear.

    Of timings the quietest, of those the one with the most repeats; then the newest. Texts of one
    model are all of the weights that were judged last, which the newest training made.
    """
    chosen: dict[Identity, Record] = {}
    reportable = [r for r in records if r.stage == stage and refusal(r) is None]
    last_weights = {_weights_key(r): r.data.get("weights") for r in reportable}
    newest_definition = dict[tuple[str, ...], int]()
    for record in reportable:
        group, version = _definition(record)
        newest_definition[group] = max(version, newest_definition.get(group, 0))
    for record in reportable:
        group, version = _definition(record)
        if version < newest_definition[group]:
            continue
        if stage in _JUDGED and record.data.get("weights") != last_weights[_weights_key(record)]:
            continue
        identity = Identity.of(record)
        if identity not in chosen or _rank(record) >= _rank(chosen[identity]):
            chosen[identity] = record
    return chosen


def _definition(record: Record) -> tuple[tuple[str, ...], int]:
    """The records that a record's definition of its quantity must not be older than, and its
    version: of loads, or of the training that made weights on generated data."""
    if record.stage in _WITH_LOADS:
        return (), record.definition("load") or 0
    trained_here = str(record.data.get("weights")).startswith("trained:")
    if record.stage in _JUDGED and trained_here and dataset_name(record) == TOY:
        identity = Identity.of(record)
        return (identity.scale,), record.definition("training") or 0
    return ("",), 0


def _weights_key(record: Record) -> tuple[str, ...]:
    identity = Identity.of(record)
    return identity.data, identity.model, identity.scale, identity.machine


def _rank(record: Record) -> tuple[int, int]:
    """Rank of a timing among its repeats; texts have none."""
    if record.stage in _JUDGED or record.stage.startswith("oracle_"):
        return 0, 0
    is_endurance = record.stage == "endurance"
    repeats = record.values.get("clips") if is_endurance else record.config("repeats")
    return quietness(record), int(repeats or 0)


def quietness(record: Record) -> int:
    """Rank of a timing by system load: quiet above unknown, above busy."""
    return {False: 2, None: 1, True: 0}[record.busy]


def superseded(records: Sequence[Record]) -> dict[str, str]:
    """Why records that fit a row do not stand in it though other settings made them, by run id.

    Their command lines named no difference: a default changed, or weights were trained anew. Plain
    repeats are not listed.
    """
    reasons: dict[str, str] = {}
    for stage in dict.fromkeys(record.stage for record in records):
        chosen = select(records, stage)
        for record in records:
            if record.stage != stage or refusal(record) is not None:
                continue
            stands = chosen.get(Identity.of(record))
            if record is stands:
                continue
            if stands is None:
                reasons[record.run_id] = "an older definition of a load, or an earlier training"
            elif differing := _differing_settings(record, stands):
                reasons[record.run_id] = (
                    f"{stands.run_id} stands in its row; it had {', '.join(differing)}"
                )
    return reasons


def _differing_settings(record: Record, other: Record) -> list[str]:
    """Settings with an effect that both records have, with the value of the first."""
    one, two = _settings(record), _settings(other)
    return [f"{key}={one[key]}" for key in one if key in two and one[key] != two[key]]


def _settings(record: Record) -> dict[str, str]:
    """Effective settings, flat, without those that have no effect on a cell."""
    flat: dict[str, str] = {}

    def walk(node: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            name = f"{prefix}{key}"
            if name.partition(".")[0] in _WITHOUT_EFFECT or name in _WITHOUT_EFFECT:
                continue
            if isinstance(value, Mapping):
                walk(value, f"{name}.")
            elif not name.startswith("scale."):
                flat[name] = str(value)

    walk(with_component_names(record.data["config"]), "")
    return flat


def variant(record: Record) -> str:
    """What a record's model is run with, beside the defaults: stages between encoder and decoder,
    engine, settings that its command line or that of its training changed, and the weights' label
    where no record tells how they were trained; empty if nothing."""
    stages = record.values.get("visual_stages", [])
    text = f" with {', '.join(stages)}" if stages else ""
    weights = str(record.data.get("weights", ""))
    untold = record.training is None and record.stage in _JUDGED
    parts = [
        f"{name} {record.values[name]}"
        for name, default in _DEFAULTS.items()
        if record.values.get(name, default) != default and not (name == "host" and phone(record))
    ]
    if record.values.get("throttled"):
        parts.append("throttled")
    if untold and weights.partition(":")[0] in ("trained", "released", "mixed"):
        parts.append(f"weights {weights}")
    for key, value in sorted(record.overrides.items()):
        head = key.partition(".")[0]
        if head == "quant":
            continue  # the recipe has it
        if key == "engine.processes" and "device" in record.values:
            continue  # no module runs in Python there
        if key not in _FIELDS and head not in _WITHOUT_EFFECT and key not in _WITHOUT_EFFECT:
            parts.append(f"{key}={value}")
    return text + "".join(f", {part}" for part in parts)


def family(record: Record) -> str:
    """Model family of a record, as the paper spells it, with its variant."""
    module = record.component("model").removeprefix("models.")
    device = str(record.data.get("device", "cpu"))
    name = FAMILIES.get(module, _model_name(record)) + variant(record)
    return name if device == "cpu" else f"{name}, {device}"


def _model_name(record: Record) -> str:
    return str(record.config("model.name"))


def _dataset(record: Record) -> str:
    """Data set whose clips are timed."""
    return record.component("dataset").rpartition(".")[2] or TOY


def dataset_name(record: Record) -> str:
    """Data set of a record, as the paper's columns name it.

    A protocol that may be the paper's has the paper's name; a reduced gallery or another protocol
    keeps its own name, so that it is never shown in the paper's column.
    """
    protocol = str(record.data.get("protocol") or TOY)
    label = str(record.values.get("label") or "")
    if protocol.startswith(TOY):
        return TOY
    return f"{protocol} ({label})" if label else PROTOCOLS.get(protocol, protocol)


def precision_label(record: Record) -> str:
    """Precision of a record in row names: the recipe of its quantiser, where the record has it."""
    return str(record.values.get("recipe") or record.values.get("precision", ""))


def device_and_model(record: Record) -> str:
    """Device and model of a record with its variant, the prefix of row names in performance
    tables."""
    device, data = record.data["device"], _dataset(record)
    model = f"{_model_name(record)}{variant(record)}{'' if data == TOY else f' on {data}'}"
    return f"{phone(record) or ('host' if device == 'cpu' else device)}/{model}"


def phone(record: Record) -> str:
    """The phone that a record is of; empty for this or another computer, and for a stand-in, whose
    rows say `host standin`."""
    device = record.values.get("device", {})
    return "" if device.get("standin", True) else str(device["model"])


def newest(records: Iterable[Record], stage: str) -> dict[Identity, Record]:
    """`select` for tables of texts: toy data and mPLUG2+ first."""

    def order(identity: Identity) -> tuple[object, ...]:
        model = identity.model
        return identity.data != TOY, identity.data, not model.startswith("mPLUG2+"), model

    chosen = select(records, stage)
    return {identity: chosen[identity] for identity in sorted(chosen, key=order)}


def refusal(record: Record) -> str | None:
    """Why no table shows a record; None for one that tables show."""
    if not record.ok:
        status = record.data["status"]
        if record.stage == "training_step" and status == "oom":
            return None
        return f"{status}: {record.data.get('detail', '')}"
    if not record.in_tables:
        return "a smoke run"
    if record.config("from_predictions"):
        return "captions read from a file, whose model is unknown"
    if record.stage.startswith("oracle_") or record.stage == "text_embedder":
        changed = variant(record)
        return f"its table has one row, of the defaults{changed}" if changed else None
    if str(record.values.get("host", "")).endswith(EMULATED):
        return "times of an emulated processor, which are functional only"
    if record.stage in _JUDGED and record.data.get("weights") == "random":
        return "texts of random weights"
    if record.stage in _WRITE_SCRIPTS and record.config("pipeline.name") == "assembly":
        prompts = [s for s in record.samples() if s["kind"] == "prompt"]
        if not any(p["stages_s"].get("script") for p in prompts):
            return "an assembly that wrote no script: no clip was as similar as its threshold"
    return None
