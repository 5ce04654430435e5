"""A released SmolVLM2 as a whole model; the family's file knows the keys and the numbers."""

from collections.abc import Mapping
from typing import Any, cast

from atom_repro.checkpoints.released.source import Ignored, Module, Placed, Source
from atom_repro.datatypes import AtomError
from atom_repro.models.smolvlm2 import SmolVLM2, check_released, released_key


def place(key: str) -> Placed | Ignored:
    found = released_key(key)
    if found is None:
        return Ignored("modules make their constants")
    return Placed(cast(Module, found[0]), found[1])


def check(model: Any, config: Mapping[str, Any]) -> None:
    if not isinstance(model, SmolVLM2):
        raise AtomError(f"sources.whole is a SmolVLM2, model={model.name} is not; choose one")
    check_released(model, config)


SOURCES = [
    Source(
        name="SmolVLM2",
        role="whole",
        signature=r"model\.text_model\.embed_tokens\.weight",
        place=place,
        how="huggingface.co/HuggingFaceTB/SmolVLM2-256M-Video-Instruct or -500M-",
        check=check,
    )
]
