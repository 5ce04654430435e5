"""Stable names of components in records, independent of the module that builds them.

A configuration names a builder by its dotted path (`_target_`), and a record keeps the
configuration. So that a moved file remains the same component, names are compared instead: the
path of the builder's module when this rule was introduced. A component that moves gets a line here.
"""

from collections.abc import Mapping
from typing import Any

# Dotted path of a builder, in old records or the current configuration, to the component's name.
MOVED = {
    "atom_repro.data.toy.dataset.build": "data.toy",
    "atom_repro.evaluation.human_captions.captioner.build": "pipelines.oracle",
    "atom_repro.pipelines.search.build": "pipelines.clip_search",
    "atom_repro.pipelines.search_session.build": "pipelines.clip_search",
    "atom_repro.training.augmentation.mplug2.build": "data.augmentation.mplug2",
    "atom_repro.training.augmentation.none.build": "data.augmentation.none",
    "atom_repro.training.augmentation.shift.build": "data.augmentation.shift",
}


def component_name(target: str) -> str:
    """The component name of a `_target_`: `models.mplug2plus`, `quant.int8`."""
    return MOVED.get(target) or target.removeprefix("atom_repro.").removesuffix(".build")


def with_component_names(node: Any) -> Any:
    """A configuration with component names in place of dotted `_target_` paths."""
    if isinstance(node, Mapping):
        return {
            k: component_name(v) if k == "_target_" else with_component_names(v)
            for k, v in node.items()
        }
    if isinstance(node, list | tuple):
        return [with_component_names(value) for value in node]
    return node
