"""From overrides to a checked configuration, and from its nodes to objects.

A mistake becomes one line that names the key and the nearest right one.
"""

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atom_repro.config.schemas import register
from atom_repro.datatypes import AtomError

CONF = Path(__file__).resolve().parents[2] / "conf"

Built = TypeVar("Built")


def compose(primary: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration of one entry point, checked.

    Raises:
        AtomError: a key that does not exist, a value of the wrong type or an unknown choice, in
            one line with the nearest right one.
    """
    register()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose(primary, overrides=list(overrides))
            OmegaConf.to_container(cfg, resolve=True)
            _check_types(primary, overrides, cfg)
    except (HydraException, OmegaConfBaseException) as error:
        raise AtomError(_explain(primary, error)) from error
    return cfg


def _check_types(primary: str, overrides: Sequence[str], cfg: DictConfig) -> None:
    """Values given by hand must be of the type of the file's own value."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    groups = [o.input_line for o in parsed if (CONF / o.key_or_group.split("@")[0]).is_dir()]
    base = _with_groups(primary, tuple(c for c in groups if c))
    for override in parsed:
        key = override.key_or_group
        before = OmegaConf.select(base, key)
        after = OmegaConf.select(cfg, key)
        if override.is_delete() or override.is_add() or before is None or _alike(before, after):
            continue
        raise AtomError(
            f"{key}={override.value()!s} is {_kind(after)}; {key} takes {_kind(before)}"
            f" (such as {before})"
        )


@functools.cache
def _with_groups(primary: str, groups: tuple[str, ...]) -> DictConfig:
    """The configuration with its groups chosen and no value changed; inside `initialize`."""
    return hydra.compose(primary, overrides=list(groups))


def _alike(before: Any, after: Any) -> bool:
    if isinstance(before, bool) or isinstance(after, bool):
        return isinstance(before, bool) and isinstance(after, bool)
    if isinstance(before, float):
        return isinstance(after, int | float)
    if isinstance(before, DictConfig | ListConfig):
        return type(before) is type(after)
    return isinstance(after, type(before))


def _kind(value: Any) -> str:
    if isinstance(value, DictConfig):
        return "a group of keys"
    if isinstance(value, ListConfig):
        return "a list"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(type(value), "nothing" if value is None else type(value).__name__)


def _explain(primary: str, error: Exception) -> str:
    """One line out of Hydra's and OmegaConf's several."""
    chain: list[str] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(str(link))
        link = link.__cause__
    text = "\n".join(chain)
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"Key '([^']+)' (?:is not in struct|not in)", text
    )
    if unknown and ("not in" in text or "is not in struct" in text):
        return f"unknown key {unknown[1]}{nearest(unknown[1], keys(primary))}"
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


@functools.cache
def choices(primary: str) -> frozenset[str]:
    """The config groups that an entry point has a node of."""
    return frozenset(str(name) for name in _default(primary) if (CONF / str(name)).is_dir())


@functools.cache
def keys(primary: str) -> tuple[str, ...]:
    """Every dotted key of an entry point's configuration."""

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
    """The configuration without an override."""
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return _with_groups(primary, ())


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint at the key that was meant, to end an error message with."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "; see --help for the keys of this command"


def build(node: DictConfig, returns: type[Built] | None = None) -> Built:
    """Call the `_target_` of a code group's node with its own keys, containers made plain.

    Raises:
        AtomError: what the builder says of a value, without Hydra's words around it.
    """
    try:
        made: Built = hydra.utils.instantiate(node, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, AtomError):
            raise error.__cause__ from error
        raise
    if returns is not None and not isinstance(made, returns):
        raise AtomError(f"{node._target_} made a {type(made).__name__}, not a {returns.__name__}")
    return made


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The effective configuration, every reference resolved, as a record stores it."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}


def without_places(node: Mapping[str, Any]) -> dict[str, Any]:
    """A data set's settings without where its files lie: their hash is among a record's inputs."""
    return {k: v for k, v in node.items() if k not in ("annotations", "videos")}
