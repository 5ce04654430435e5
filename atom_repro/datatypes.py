"""Data types shared by all layers: clips, predictions, spans, machines, and user errors.

Everything here is frozen, free of torch, and cheap to import, so that configuration,
records and reports can use it without loading a model library.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

ClipStatus = Literal["ok", "partial", "missing", "corrupt"]
QueryKind = Literal["sentence", "paragraph"]


class AtomError(Exception):
    """An error that the user can fix, described in one line.

    The message names the file, key or device and the way out. Entry points print it
    without a traceback and exit with status 1; every other exception is a bug of ours
    and keeps its traceback. `outcome` is the status of a record that ends with it.
    """

    outcome: ClassVar[str] = "failed"


class OutOfMemory(AtomError, MemoryError):
    """Too little memory, detected before allocation."""


@dataclass(frozen=True)
class Query:
    """A text query for one video; the relevant clip is the one that lists it in `queries`."""

    query_id: str
    text: str
    kind: QueryKind = "sentence"


@dataclass(frozen=True)
class Clip:
    """One video, or a window of one, with its annotations.

    `video_id` is the file's stem. `source_id` names the recording that the clip was cut
    from, so that leaks between splits can be found. `start_s` and `end_s` bound the window
    inside the file; `end_s` None means up to the end.
    """

    dataset: str
    split: str
    video_id: str
    path: Path
    source_id: str = ""
    start_s: float = 0.0
    end_s: float | None = None
    references: tuple[str, ...] = ()
    queries: tuple[Query, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    status: ClipStatus = "ok"
    detail: str = ""


@dataclass(frozen=True)
class Prediction:
    """A captioner's output for one clip. `token_ids` exclude prompt and end-of-sequence; `fault`
    says what of the clip could not be seen."""

    video_id: str
    caption: str
    token_ids: tuple[int, ...]
    log_prob: float
    fault: str = ""


@dataclass(frozen=True)
class Failure:
    """Why a clip has no caption: the stage that failed, as in `Span`, and the reason in one line.
    It takes the clip's place among the predictions."""

    video_id: str
    stage: str
    detail: str


@dataclass(frozen=True)
class Span:
    """A timed interval of work, on the run's single monotonic clock.

    `stage` is decode_video | encode | caption | embed | rank | script | summary | answer | load |
    release;
    `lane` is the thread that did it. Times are seconds since the start of the run. `tokens` are
    those generated, of the text that is given back.
    """

    stage: str
    module: str
    item: str
    lane: str
    start_s: float
    end_s: float
    bytes_read: int = 0
    tokens: int = 0

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    def to_dict(self) -> dict[str, Any]:
        """Convert to a sample; times are rounded to microseconds, finer than the clock's noise."""
        return {
            "stage": self.stage,
            "module": self.module,
            "item": self.item,
            "lane": self.lane,
            "start_s": round(self.start_s, 6),
            "end_s": round(self.end_s, 6),
            "bytes_read": self.bytes_read,
            "tokens": self.tokens,
        }


@dataclass(frozen=True)
class CaptionWork:
    """Operations and bytes of one clip's caption: multiplications and additions in matrix products,
    and bytes read from memory. Of the operations, `*_fp32_operations` stay in fp32 whatever the
    quantiser: attention and convolutions. Records before compare's have no operations of steps."""

    encode_operations: int
    prefill_operations: int
    step_bytes: int
    steps: int
    encode_fp32_operations: int = 0
    prefill_fp32_operations: int = 0
    step_operations: int = 0

    def lower_bound_s(
        self, limits: Mapping[str, float], arithmetic: str, decode_batch: int = 1
    ) -> dict[str, float]:
        """Lower bound in seconds for each stage, every operation at the device's rate of its own
        precision; empty if the rate of `arithmetic` is missing.

        Args:
            decode_batch: clips that share a decoding step, and with it what it reads.
        """
        rate = limits.get(f"{arithmetic}_operations_per_s")
        if not rate:
            return {}
        fp32_rate = limits.get("fp32_operations_per_s", rate)

        def products_s(operations: int, in_fp32: int) -> float:
            return (operations - in_fp32) / rate + in_fp32 / fp32_rate

        step_s = max(
            self.step_bytes / decode_batch / limits["read_bytes_per_s"],
            self.step_operations / rate,
        )
        prefill_s = products_s(self.prefill_operations, self.prefill_fp32_operations)
        return {
            "encode": products_s(self.encode_operations, self.encode_fp32_operations),
            "caption": prefill_s + self.steps * step_s,
        }


@dataclass(frozen=True)
class Machine:
    """The machine of a measurement. `fingerprint`, the folder name of its records, is a hash of all
    other fields, and not of a host's name. Processors that differ under one model name differ in
    family, model, stepping or instruction sets; None where a record is older than these fields."""

    fingerprint: str
    cpu: str
    cores: int
    memory_gib: int
    os_release: str
    family: str | None = None
    model: str | None = None
    stepping: str | None = None
    instructions: tuple[str, ...] | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Machine":
        """Read a record's `machine`."""
        names = data.get("instructions")
        return cls(**{**data, "instructions": None if names is None else tuple(names)})

    @property
    def processor(self) -> str:
        """Description of the processor, without cores and instruction sets."""
        if self.family is None:
            return f"{self.cpu}, family not recorded"
        return f"{self.cpu} (family {self.family}, model {self.model}, stepping {self.stepping})"

    def __str__(self) -> str:
        sets = "" if self.instructions is None else f", {' '.join(self.instructions) or 'scalar'}"
        return (
            f"{self.processor}{sets}, {self.cores} cores, {self.memory_gib} GiB, {self.os_release}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "cpu": self.cpu,
            "family": self.family,
            "model": self.model,
            "stepping": self.stepping,
            "instructions": None if self.instructions is None else list(self.instructions),
            "cores": self.cores,
            "memory_gib": self.memory_gib,
            "os_release": self.os_release,
        }
