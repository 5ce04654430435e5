"""Run settings: their types, their check at composition, and the wrapper of every entry point.

Two kinds of config group. Data groups (`scale`, `paths`, `train`, `generation`, `runtime`, …) are
dataclasses in `schemas`: Hydra refuses a misspelt or wrongly typed key. Code groups (`model`,
`dataset`, `quant`, `protocol`, …) are YAML with one `_target_` and its keyword arguments: Hydra
refuses a misspelt key, and `compose` a value of another type than the file's own.

Nothing here imports torch: `--help` and a refused override answer at once.
"""

from atom_repro.config.command import entry
from atom_repro.config.composition import (
    CONF,
    build,
    choices,
    compose,
    keys,
    nearest,
    plain,
    without_places,
)
from atom_repro.config.schemas import register

__all__ = [
    "CONF",
    "build",
    "choices",
    "compose",
    "entry",
    "keys",
    "nearest",
    "plain",
    "register",
    "without_places",
]
