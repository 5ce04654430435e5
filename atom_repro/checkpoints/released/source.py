"""Types that describe a released checkpoint: a mapping from its keys to those of our modules.

Nothing here reads a file. Module keys are those of a module's files (`checkpoint_state_dict`), so
one mapping serves every form of a module.
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


def identity(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class MappedKey:
    """The module and key that a source key is converted to.

    `transform` must work on meta tensors, with which shapes are checked before anything is read.
    Where several source keys make one weight, they are joined along the first axis: `part` of
    `parts`. Where the model has no such weight, `if_absent` is the rule by which the key is
    ignored; without one that is an error.
    """

    module: Module
    key: str
    transform: Callable[[Tensor], Tensor] = identity
    part: int = 0
    parts: int = 1
    if_absent: str = ""


@dataclass(frozen=True)
class IgnoredKey:
    """A source key that no model here uses, and the reason."""

    rule: str


KeyMapping = Callable[[str], MappedKey | IgnoredKey | None]


@dataclass(frozen=True)
class Source:
    """A kind of released checkpoint.

    Args:
        role: the `sources.<role>` that takes it.
        model: the class of the models whose modules it fills.
        signature: a key (regular expression) that identifies this kind.
        map_key: returns None for an unknown key, which is an error.
        new: module keys (regular expression, whole key) that it need not fill, to the reason.
            They are initialised as training would.
        download_from: where the weights are published, under which terms.
        config_keys: hyperparameters that no shape shows, to their keys in `config.json`.
        check: compares the model with the whole `config.json`; raises AtomError.
    """

    name: str
    role: Role
    model: type
    signature: str
    map_key: KeyMapping
    download_from: str
    new: Mapping[str, str] = field(default_factory=dict)
    config_keys: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Any, Mapping[str, Any]], None] | None = None
