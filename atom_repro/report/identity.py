"""Identity of a cell: what two records share if they are repeats of one measurement.

Declared here for every table. Records that differ in it stand in rows or sections of their own; of
those that share it the quietest counts, then the newest. A record that fits no row is refused, with
the reason; it never stands in for another.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from atom_repro.records.record import Record

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
    "most_clips", "steps", "clips", "sweep", "grid", "train.threads", "train.checkpoint_every",
)  # fmt: skip
# Stages that judge texts.
_JUDGED = ("caption", "retrieval", "tasks")
_DEFAULTS = {"engine": "eager", "host": "in_process"}


@dataclass(frozen=True)
class Identity:
    """Identity of a quality cell.

    Attributes:
        data: data set or protocol.
        model: family, as the paper spells it, with its `variant`.
        scale: of the run.
        precision: recipe of the quantiser.
        machine: fingerprint.
    """

    data: str
    model: str
    scale: str
    precision: str
    machine: str

    @classmethod
    def of(cls, record: Record) -> "Identity":
        return cls(
            dataset_name(record),
            family(record),
            str(record.data["scale"]),
            precision_label(record),
            record.machine.fingerprint,
        )


def variant(record: Record) -> str:
    """What a record's model is run with, beside the defaults: stages between encoder and decoder,
    engine, and settings that its command line or that of its training changed; empty if nothing."""
    stages = record.values.get("visual_stages", [])
    text = f" with {', '.join(stages)}" if stages else ""
    parts = [
        f"{name} {record.values[name]}"
        for name, default in _DEFAULTS.items()
        if record.values.get(name, default) != default
    ]
    for key, value in sorted(record.overrides.items()):
        head = key.partition(".")[0]
        if key not in _FIELDS and head not in _WITHOUT_EFFECT and key not in _WITHOUT_EFFECT:
            parts.append(f"{key}={value}")
    return text + "".join(f", {part}" for part in parts)


def family(record: Record) -> str:
    """Model family of a record, as the paper spells it, with its variant."""
    module = record.component("model").removeprefix("models.")
    return FAMILIES.get(module, str(record.config("model.name"))) + variant(record)


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
    return str(record.values.get("recipe") or record.values["precision"])


def device_and_model(record: Record) -> str:
    """Device and model of a record with its variant, the prefix of row names in performance
    tables."""
    device = record.data["device"]
    model = f"{record.config('model.name')}{variant(record)}"
    return f"{'host' if device == 'cpu' else device}/{model}"


def newest(records: Iterable[Record], stage: str) -> dict[Identity, Record]:
    """Newest reportable record of a stage by identity: toy data and mPLUG2+ first."""
    by_identity: dict[Identity, Record] = {}
    for record in records:
        if record.stage == stage and refusal(record) is None:
            by_identity[Identity.of(record)] = record

    def order(identity: Identity) -> tuple[object, ...]:
        model = identity.model
        return identity.data != TOY, identity.data, not model.startswith("mPLUG2+"), model

    return {identity: by_identity[identity] for identity in sorted(by_identity, key=order)}


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
    if record.stage in _JUDGED and record.data.get("weights") == "random":
        return "texts of random weights"
    if record.stage in ("latency", "sessions") and record.config("pipeline.name") == "assembly":
        prompts = [s for s in record.samples() if s["kind"] == "prompt"]
        if not any(p["stages_s"].get("script") for p in prompts):
            return "an assembly that wrote no script: no clip was as similar as its threshold"
    return None
