"""Key mapping of a released SmolVLM2; `models.smolvlm2` defines the keys and checks the sizes."""

from collections.abc import Mapping
from typing import Any, cast

from atom_repro.checkpoints.released.source import IgnoredKey, MappedKey, Module, Source
from atom_repro.datatypes import AtomError
from atom_repro.models.smolvlm2 import SmolVLM2, check_released, released_key


def map_key(key: str) -> MappedKey | IgnoredKey:
    module_key = released_key(key)
    if module_key is None:
        return IgnoredKey("a constant buffer, recomputed")
    return MappedKey(cast(Module, module_key[0]), module_key[1])


def check(model: Any, config: Mapping[str, Any]) -> None:
    if not isinstance(model, SmolVLM2):
        raise AtomError(
            f"sources.whole is a SmolVLM2, model={model.name} is not; set "
            "model=smolvlm2_256m or model=smolvlm2_500m"
        )
    check_released(model, config)


SOURCES = [
    Source(
        name="SmolVLM2",
        role="whole",
        signature=r"model\.text_model\.embed_tokens\.weight",
        map_key=map_key,
        download_from="huggingface.co/HuggingFaceTB/SmolVLM2-256M-Video-Instruct or -500M-",
        check=check,
    )
]
