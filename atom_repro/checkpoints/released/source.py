"""What a released checkpoint is: a named pure function from its keys to ours.

Nothing here reads a file. Our keys are those of a module's files (`file_state`), so one mapping
serves every form of a module.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

Module = Literal["encoder", "decoder"]
Role = Literal["video", "text", "whole"]
MODULES: Mapping[Role, tuple[Module, ...]] = {
    "video": ("encoder",),
    "text": ("decoder",),
    "whole": ("encoder", "decoder"),
}


def as_is(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Placed:
    """A key of theirs is this one of ours.

    `transform` must work on a tensor without memory: shapes are checked by it before anything is
    read. Where several of theirs make one of ours, they are joined along the first axis: `part`
    of `parts`. With a `spare` rule the key is ignored by that rule where the model has no such
    weight; without one that is an error.
    """

    module: Module
    key: str
    transform: Callable[[Tensor], Tensor] = as_is
    part: int = 0
    parts: int = 1
    spare: str = ""


@dataclass(frozen=True)
class Ignored:
    """A key of theirs that no model here uses, and why."""

    rule: str


Place = Callable[[str], Placed | Ignored | None]


@dataclass(frozen=True)
class Source:
    """A kind of released checkpoint.

    Args:
        role: the `sources.<role>` that takes it.
        signature: a key (regular expression) that tells it from other kinds.
        place: None means that the key is not known, which is an error.
        new: our keys (regular expression, whole key) that it need not fill, to the reason. They
            are initialised as training would.
        how: where the weights are, under which terms.
        numbers: numbers of the model that no shape shows, to their places in `config.json`.
        check: holds the model against the whole of `config.json`; raises AtomError.
    """

    name: str
    role: Role
    signature: str
    place: Place
    how: str
    new: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Any, Mapping[str, Any]], None] | None = None
