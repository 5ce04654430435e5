"""One list of overrides for several commands: each gets what it knows, none is lost.

`plan` composes every stage of a study before the first one starts, so that a mistake costs
nothing, and refuses an override that no stage knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from atom_repro import config
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
    report = Stage("eval.report", tuple(t for t in overrides if _knows("report", _key(t))))
    given = {key: text for text in overrides if (key := _key(text))}
    quant = given.pop("quant", None)
    precisions = None if quant is None else [quant.split("=", 1)[1]]
    own = [text for key, text in given.items() if _knows(primary, key)]
    study = config.compose(primary, own)
    known = {key for key in given if _knows(primary, key)}
    stages = []
    for stage in study.stages:
        mine = [text for key, text in given.items() if _knows(stage.primary, key)]
        known |= {key for key in given if _knows(stage.primary, key)}
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
        if key not in known:
            everything = {k for s in study.stages for k in config.keys(s.primary)}
            raise AtomError(f"no stage knows {key}{config.nearest(key, sorted(everything))}")
    return stages


def _key(override: str) -> str:
    if override.startswith("-"):
        raise AtomError(f"{override} is not an override; a flag belongs to a single command")
    try:
        return str(OverridesParser.create().parse_overrides([override])[0].key_or_group)
    except HydraException as error:
        raise AtomError(f"cannot read {override!r}; an override is key=value") from error


def _knows(primary: str, key: str) -> bool:
    if (config.CONF / key).is_dir():
        config.register()
        with hydra.initialize_config_dir(str(config.CONF), version_base="1.3"):
            return key in hydra.compose(primary)
    return key in config.keys(primary)
