"""One list of overrides for several commands: each gets what it knows, none is lost.

`plan` composes every stage of a study before the first one starts, so that a mistake costs
nothing, and refuses an override that no stage knows. `grid` does the same for a sweep, one
command over a grid of settings.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from atom_repro import config
from atom_repro.config.schemas import OPEN
from atom_repro.datatypes import AtomError


@dataclass(frozen=True)
class Stage:
    """A command of the study: `python -m module *overrides`."""

    module: str
    overrides: tuple[str, ...]


def plan(primary: str, overrides: Sequence[str]) -> list[Stage]:
    """The stages of a study with the overrides that each of them knows.

    `stages` of `conf/<primary>.yaml` lists module and primary config; an entry with
    `per_precision` runs once for each of `precisions`, which `quant=…` narrows to one.

    Raises:
        AtomError: an override that no stage knows or that one refuses.
    """
    report = Stage("eval.report", known("report", overrides))
    given = {key: text for text in overrides if (key := _key(text))}
    quant = given.pop("quant", None)
    precisions = None if quant is None else [quant.split("=", 1)[1]]
    study = config.compose(primary, known(primary, tuple(given.values())))
    taken = {key for key in given if _knows(primary, key)}
    stages = []
    for stage in study.stages:
        mine = [text for key, text in given.items() if _knows(stage.primary, key)]
        taken |= {key for key in given if _knows(stage.primary, key)}
        variants = [[]] if not stage.per_precision else [
            [f"quant={p}"] for p in precisions or study.precisions
        ]  # fmt: skip
        for variant in variants:
            named = {_key(text) for text in mine}
            own = [text for text in stage.overrides if _key(text) not in named]
            wanted = [*own, *variant, *mine]
            config.compose(stage.primary, wanted)
            stages.append(Stage(stage.module, tuple(wanted)))
            if stage.then_report:
                stages.append(report)
    for key in given:
        if key not in taken:
            everything = {k for s in study.stages for k in config.keys(s.primary)}
            raise AtomError(f"no stage knows {key}{config.nearest(key, sorted(everything))}")
    return stages


def grid(primary: str, overrides: Sequence[str]) -> dict[str, Stage]:
    """The points of a sweep by name: `command` of `conf/<primary>.yaml` over all of `grid`.

    `axes` says which of the command's keys an axis of the grid sets. Every point gets `fixed`, the
    overrides that the command knows, and a checkpoint folder of its own in the work folder.

    Raises:
        AtomError: an override that neither sweep nor command knows, one of a key that the sweep
            sets itself, or a value of the grid that the command refuses.
    """
    sweep = config.compose(primary, known(primary, overrides))
    command, axes = sweep.command, dict(sweep.axes)
    chosen = {key: f"set grid.{axis}=[…]" for axis, key in axes.items()}
    chosen["checkpoint.folder"] = "each point has a folder of its own in paths.work"
    for key in map(_key, overrides):
        if key in chosen:
            raise AtomError(f"{key} is set by the sweep; {chosen[key]}")
        if not (_knows(primary, key) or _knows(command.primary, key)):
            everything = {*config.keys(primary), *config.keys(command.primary)}
            raise AtomError(
                f"neither the sweep nor {command.module} knows {key}"
                f"{config.nearest(key, sorted(everything))}"
            )
    shared = (*sweep.fixed, *known(command.primary, overrides))
    for axis, key in axes.items():
        if not sweep.grid[axis]:
            raise AtomError(f"grid.{axis} is empty; it takes one value of {key} or more")
        for value in sweep.grid[axis]:
            config.compose(command.primary, [*shared, f"{key}={value}"])
    common = config.compose(command.primary, shared)
    folder = Path(common.paths.work) / "sweep" / f"{common.model.name}-{common.scale.name}"
    points = {}
    for values in itertools.product(*(sweep.grid[axis] for axis in axes)):
        name = "-".join(f"{axis}_{value}" for axis, value in zip(axes, values, strict=True))
        own = [f"{key}={value}" for key, value in zip(axes.values(), values, strict=True)]
        own.append(f"checkpoint.folder={_quoted(folder / name)}")
        points[name] = Stage(command.module, (*shared, *own))
    return points


def known(primary: str, overrides: Sequence[str]) -> tuple[str, ...]:
    """Those of the overrides whose key is one of `conf/<primary>.yaml`."""
    return tuple(text for text in overrides if _knows(primary, _key(text)))


def _quoted(value: Any) -> str:
    """A value as an override takes it, whatever characters it has."""
    return "'" + str(value).replace("'", "\\'") + "'"


def _key(override: str) -> str:
    if override.startswith("-"):
        raise AtomError(f"{override} is not an override; a flag belongs to a single command")
    try:
        return str(OverridesParser.create().parse_overrides([override])[0].key_or_group)
    except HydraException as error:
        raise AtomError(f"cannot read {override!r}; an override is key=value") from error


def _knows(primary: str, key: str) -> bool:
    if (config.CONF / key).is_dir():
        return key in config.choices(primary)
    inside = tuple(f"{mapping}." for mapping in OPEN.get(primary, ()))
    return key in config.keys(primary) or key.startswith(inside)
