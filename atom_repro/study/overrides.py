"""Routing of one list of overrides to several commands, by the keys of their configurations.

`plan_stages` composes every stage of a study before the first one starts, so that errors appear at
once, and rejects an override that no stage has a key for. `sweep_points` does the same for a sweep,
one command over a grid of settings, `device_points` for a sweep of devices, and `variants` for one
command that compares several settings.
"""

import importlib.util
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from atom_repro import config
from atom_repro.config.schemas import OPEN_MAPPINGS
from atom_repro.datatypes import AtomError

# What a comparison would no longer compare if its variants differed in it.
_SHARED_BY_VARIANTS = (
    "variants", "paths", "repeats", "job_clips", "window_s", "stride_s", "dataset",
    "pipeline", "scale", "limits",
    "limits_s", "experiment", "force", "dry_run",
)  # fmt: skip


@dataclass(frozen=True)
class StageCommand:
    """A command of the study: `python -m module *overrides`, with the configuration `primary`."""

    module: str
    overrides: tuple[str, ...]
    primary: str

    def __str__(self) -> str:
        return " ".join((self.module, *self.overrides))

    @property
    def settings(self) -> dict[str, Any]:
        """The effective configuration."""
        return config.to_dict(config.compose(self.primary, self.overrides))


def plan_stages(primary: str, overrides: Sequence[str]) -> list[StageCommand]:
    """The stages of a study, each with the overrides of its own keys.

    `stages` of `conf/<primary>.yaml` lists module and primary config; an entry with
    `per_precision` runs once for each of `precisions`, which `quant=…` restricts to one. One whose
    package is missing, or that an override makes pointless, is left out.

    Raises:
        AtomError: an override with an unknown key or a rejected value.
    """
    report = StageCommand("eval.report", applicable_overrides("report", overrides), "report")
    by_key = {key: text for text in overrides if (key := _key(text))}
    given = set(by_key)
    quant = by_key.pop("quant", None)
    precisions = None if quant is None else [quant.split("=", 1)[1]]
    study = config.compose(primary, applicable_overrides(primary, tuple(by_key.values())))
    used = {key for key in by_key if _has_key(primary, key)}
    stages = []
    for stage in study.stages:
        if given & set(stage.unless) or not _installed(stage.package):
            continue
        routed = [text for key, text in by_key.items() if _has_key(stage.primary, key)]
        used |= {key for key in by_key if _has_key(stage.primary, key)}
        variants = [[]] if not stage.per_precision else [
            [f"quant={p}"] for p in precisions or study.precisions
        ]  # fmt: skip
        for variant in variants:
            overridden = {_key(text) for text in routed}
            defaults = [text for text in stage.overrides if _key(text) not in overridden]
            combined = [*defaults, *variant, *routed]
            config.compose(stage.primary, combined)
            stages.append(StageCommand(stage.module, tuple(combined), stage.primary))
            if stage.then_report:
                stages.append(report)
    for key in by_key:
        if key not in used:
            all_keys = {k for s in study.stages for k in config.config_keys(s.primary)}
            raise AtomError(f"no stage knows {key}{config.did_you_mean(key, sorted(all_keys))}")
    return stages


def sweep_points(primary: str, overrides: Sequence[str]) -> dict[str, StageCommand]:
    """The points of a sweep by name: `command` of `conf/<primary>.yaml` for every point of `grid`.

    `axes` maps an axis of the grid to the command's key. Every point gets `fixed`, the overrides
    of the command's keys, and its own checkpoint folder in the work folder.

    Raises:
        AtomError: an override of a key that neither sweep nor command has, of a key that the sweep
            sets itself, or a value of the grid that the command rejects.
    """
    sweep = config.compose(primary, applicable_overrides(primary, overrides))
    command, axes = sweep.command, dict(sweep.axes)
    reserved = {key: f"set grid.{axis}=[…]" for axis, key in axes.items()}
    reserved["checkpoint.folder"] = "each point has a folder of its own in paths.work"
    for key in map(_key, overrides):
        if key in reserved:
            raise AtomError(f"{key} is set by the sweep; {reserved[key]}")
        _require_known(key, primary, command)
    shared = (*sweep.fixed, *applicable_overrides(command.primary, overrides))
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
        point_overrides = [
            f"{key}={value}" for key, value in zip(axes.values(), values, strict=True)
        ]
        point_overrides.append(f"checkpoint.folder={quoted(folder / name)}")
        overridden = (*shared, *point_overrides)
        points[name] = StageCommand(command.module, overridden, command.primary)
    return points


def device_points(
    primary: str, overrides: Sequence[str], host: Sequence[str]
) -> dict[str, StageCommand]:
    """The points of a sweep on one device by name: `command` of `conf/<primary>.yaml` for every
    quantiser and pipeline, and for every setting of the pipelines in `ablated`.

    A setting that changes the model has modules, and so a model name, of its own.

    Args:
        host: overrides that choose the device.

    Raises:
        AtomError: an override of a key that neither sweep nor command has, or that the sweep sets
            itself, an unknown setting, or a value that the command rejects.
    """
    sweep = config.compose(primary, applicable_overrides(primary, overrides))
    command = sweep.command
    reserved = {"host": "hosts", "quant": "quants", "pipeline": "pipelines", "setting": "settings"}
    for key in map(_key, overrides):
        if key in reserved:
            raise AtomError(f"{key} is set by the sweep; set {reserved[key]}=[…]")
        if not _in_a_group(command.primary, key):
            _require_known(key, primary, command)
    # A key of a group may be one of the sweep's choices alone, such as `host.serial`.
    given = [
        text
        for text in overrides
        if _has_key(command.primary, _key(text)) or _in_a_group(command.primary, _key(text))
    ]
    fixed = [text for text in sweep.fixed if _key(text) not in set(map(_key, overrides))]
    shared = (*fixed, *host, *given)
    if not (sweep.quants and sweep.pipelines):
        raise AtomError("quants and pipelines need one choice or more")
    points = {}
    for (setting, changes), quant, pipeline in itertools.product(
        sweep.settings.items(), sweep.quants, sweep.pipelines
    ):
        if changes and pipeline not in sweep.ablated:
            continue
        own = [f"quant={quant}", f"pipeline={pipeline}", *shared, *changes]
        own += [f"setting={setting}"] if len(sweep.settings) > 1 else []
        common = config.compose(command.primary, own)
        if any(_key(text).startswith("model.") for text in changes):
            own.append(f"model.name={common.model.name}-{setting}")
        name = f"{quant} {pipeline}" + f" {setting}" * (len(sweep.settings) > 1)
        points[name] = StageCommand(command.module, tuple(own), command.primary)
    return points


def variants(
    primary: str,
    overrides: Sequence[str],
    by_name: Mapping[str, Sequence[str]],
    *,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """The configuration of each variant of a command: its own overrides after the command line's.

    Args:
        only: names of those that are wanted, in this order; all if it is empty.

    Raises:
        AtomError: no variant, an unknown name in `only`, an override that the command has no key
            for or rejects, or one of what all variants share.
    """
    if unknown := [name for name in only if name not in by_name]:
        hint = config.did_you_mean(unknown[0], list(by_name))
        raise AtomError(f"only: there is no variant {unknown[0]}{hint}")
    if not by_name:
        raise AtomError("variants is empty; it takes names with lists of overrides")
    composed = {}
    for name in only or by_name:
        own = by_name[name]
        keys = {_key(text) for text in own}
        for key in keys:
            if key.partition(".")[0] in _SHARED_BY_VARIANTS:
                raise AtomError(f"variants.{name}: {key} is the same for all; set it by itself")
        others = [text for text in overrides if _key(text) not in keys]
        try:
            composed[name] = config.compose(primary, [*others, *own])
        except AtomError as error:
            raise AtomError(f"variants.{name}: {error}") from error
    return composed


def applicable_overrides(primary: str, overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides whose key is in `conf/<primary>.yaml`."""
    return tuple(text for text in overrides if _has_key(primary, _key(text)))


def _require_known(key: str, primary: str, command: Any) -> None:
    """Check that a sweep or its command has a key.

    Raises:
        AtomError: neither has.
    """
    if not (_has_key(primary, key) or _has_key(command.primary, key)):
        all_keys = {*config.config_keys(primary), *config.config_keys(command.primary)}
        raise AtomError(
            f"neither the sweep nor {command.module} knows {key}"
            f"{config.did_you_mean(key, sorted(all_keys))}"
        )


def quoted(value: Any) -> str:
    """Quote a value for Hydra's override grammar."""
    return "'" + str(value).replace("'", "\\'") + "'"


def _installed(package: str) -> bool:
    return not package or importlib.util.find_spec(package) is not None


def _key(override: str) -> str:
    if override.startswith("-"):
        raise AtomError(f"{override} is not an override; a flag belongs to a single command")
    try:
        return str(OverridesParser.create().parse_overrides([override])[0].key_or_group)
    except HydraException as error:
        raise AtomError(f"cannot read {override!r}; an override is key=value") from error


def _in_a_group(primary: str, key: str) -> bool:
    """Whether a key is inside a group, whose choice decides whether it exists."""
    group, dot, _ = key.partition(".")
    return bool(dot) and group in config.config_groups(primary)


def _has_key(primary: str, key: str) -> bool:
    if (config.CONF / key).is_dir():
        return key in config.config_groups(primary)
    inside = tuple(f"{mapping}." for mapping in OPEN_MAPPINGS.get(primary, ()))
    return key in config.config_keys(primary) or key.startswith(inside)
