"""Configuration with Hydra: typed schemas, checked composition, and the entry-point decorator.

Two kinds of config group. Data groups (`scale`, `paths`, `train`, `generation`, `runtime`, …) are
dataclasses in `schemas`: Hydra refuses a misspelt or wrongly typed key. Code groups (`model`,
`dataset`, `quant`, `protocol`, …) are YAML with one `_target_` and its keyword arguments: Hydra
refuses a misspelt key, and `compose` a value of another type than the file's own.

Nothing here imports torch, so `--help` and override errors are fast. The first import of a command
is this one, and with it Ctrl-C is heard.
"""

from atom_repro.config.interruption import end_at_once_while_importing

end_at_once_while_importing()

from atom_repro.config.command import entry  # noqa: E402
from atom_repro.config.composition import (  # noqa: E402
    CONF,
    build,
    compose,
    config_groups,
    config_keys,
    did_you_mean,
    to_dict,
    without_paths,
)
from atom_repro.config.schemas import register  # noqa: E402

__all__ = [
    "CONF",
    "build",
    "compose",
    "config_groups",
    "config_keys",
    "did_you_mean",
    "entry",
    "register",
    "to_dict",
    "without_paths",
]
