"""Compose and check a configuration from overrides, and instantiate its nodes.

Errors are one line that names the key and the closest valid one.
"""

import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atom_repro.config.schemas import register
from atom_repro.datatypes import AtomError

CONF = Path(__file__).resolve().parents[2] / "conf"

Built = TypeVar("Built")


def compose(primary: str, overrides: Sequence[str]) -> DictConfig:
    """Compose and check the configuration of one entry point.

    Raises:
        AtomError: an unknown key, a value of the wrong type or an unknown choice, in one line
            with the closest valid one.
    """
    register()
    try:
        with _hydra():
            cfg = hydra.compose(primary, overrides=list(overrides))
            OmegaConf.to_container(cfg, resolve=True)
            _check_types(primary, overrides, cfg)
    except (HydraException, OmegaConfBaseException) as error:
        raise AtomError(_explain(primary, error)) from error
    return cfg


def _check_types(primary: str, overrides: Sequence[str], cfg: DictConfig) -> None:
    """Check that each overridden value has the type of the default value."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    groups = [o.input_line for o in parsed if (CONF / o.key_or_group.split("@")[0]).is_dir()]
    base = _with_groups(primary, tuple(c for c in groups if c))
    for override in parsed:
        key = override.key_or_group
        default = OmegaConf.select(base, key)
        value = OmegaConf.select(cfg, key)
        if (
            override.is_delete()
            or override.is_add()
            or default is None
            or _same_type(default, value)
        ):
            continue
        raise AtomError(
            f"{key}={override.value()!s} is {_type_name(value)}; {key} takes {_type_name(default)}"
            f" (such as {default})"
        )


@functools.cache
def _with_groups(primary: str, groups: tuple[str, ...]) -> DictConfig:
    """The configuration with its groups chosen and default values; call inside `initialize`."""
    return hydra.compose(primary, overrides=list(groups))


def _same_type(default: Any, value: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, DictConfig | ListConfig):
        return type(default) is type(value)
    return isinstance(value, type(default))


def _type_name(value: Any) -> str:
    if isinstance(value, DictConfig):
        return "a group of keys"
    if isinstance(value, ListConfig):
        return "a list"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(type(value), "nothing" if value is None else type(value).__name__)


def _explain(primary: str, error: Exception) -> str:
    """One-line message from Hydra's and OmegaConf's chained errors."""
    messages: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        messages.append(str(cause))
        cause = cause.__cause__
    text = "\n".join(messages)
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"Key '([^']+)' (?:is not in struct|not in)", text
    )
    if unknown and ("not in" in text or "is not in struct" in text):
        if owners := _choices_with(unknown[1]):
            group, _, key = unknown[1].partition(".")
            return f"the chosen {group} has no {key}; it is a setting of {', '.join(owners)}"
        return f"unknown key {unknown[1]}{did_you_mean(unknown[1], config_keys(primary))}"
    choice = re.search(r"Could not find '([^/']+)/([^']+)'", text)
    if choice:
        options = sorted(p.stem for p in (CONF / choice[1]).glob("*.yaml"))
        listed = f"; {choice[1]} is one of {', '.join(options)}" if options else ""
        return f"unknown choice {choice[1]}={choice[2]}{listed}"
    group = re.search(r"Could not override '([^']+)'.*No match in the defaults list", text, re.S)
    if group:
        return f"{group[1]} is not a choice of this command; see --help"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    value = next((line for line in lines if line.startswith(("Value ", "Invalid value"))), None)
    key = next((line.split(":", 1)[1].strip() for line in lines if "full_key:" in line), None)
    if value and key:
        return f"{key}: {value[0].lower()}{value[1:]}"
    return lines[0]


def _choices_with(key: str) -> list[str]:
    """The choices of a group, as `group=choice`, whose files have the dotted key `key`."""
    group, _, inner = key.partition(".")
    files = sorted((CONF / group).glob("*.yaml")) if inner else []
    missing = object()
    return [
        f"{group}={file.stem}"
        for file in files
        if OmegaConf.select(OmegaConf.load(file), inner, default=missing) is not missing
    ]


@functools.cache
def config_groups(primary: str) -> frozenset[str]:
    """Names of the config groups of an entry point."""
    return frozenset(str(name) for name in _default(primary) if (CONF / str(name)).is_dir())


@functools.cache
def config_keys(primary: str) -> tuple[str, ...]:
    """All dotted keys of an entry point's configuration."""

    def walk(node: Any, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        return [
            key
            for name, child in node.items()
            for key in (f"{prefix}{name}", *walk(child, f"{prefix}{name}."))
        ]

    return tuple(walk(OmegaConf.to_container(_default(primary), resolve=False), ""))


def _default(primary: str) -> DictConfig:
    """The configuration without overrides."""
    register()
    with _hydra():
        return _with_groups(primary, ())


@contextmanager
def _hydra() -> Iterator[None]:
    """Hydra on `conf/`, also inside a command, whose own Hydra is put back afterwards."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def did_you_mean(key: str, known: Sequence[str]) -> str:
    """Suffix of an error message that suggests the closest known key."""
    matches = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return (
        f"; did you mean {matches[0]}?" if matches else "; see --help for the keys of this command"
    )


def build(node: DictConfig, returns: type[Built] | None = None) -> Built:
    """Instantiate the `_target_` of a node with its other keys, as plain containers.

    Raises:
        AtomError: the builder's own error, without Hydra's wrapping, or an object of another type.
    """
    try:
        built: Built = hydra.utils.instantiate(node, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, AtomError):
            raise error.__cause__ from error
        raise
    if returns is not None and not isinstance(built, returns):
        raise AtomError(
            f"{node._target_} returned a {type(built).__name__}, not a {returns.__name__}"
        )
    return built


def to_dict(cfg: DictConfig) -> dict[str, Any]:
    """The effective configuration as a dict, references resolved, as a record stores it."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}


def without_paths(node: Mapping[str, Any]) -> dict[str, Any]:
    """A data set's settings without file locations; a record's inputs have the files' hash."""
    return {k: v for k, v in node.items() if k not in ("annotations", "videos")}
