"""Key mapping of a released SmolVLM2; `models.smolvlm2` defines the keys and checks the sizes."""

from typing import cast

from atom_repro.checkpoints.released.source import IgnoredKey, MappedKey, Module, Source
from atom_repro.models.smolvlm2 import SmolVLM2, check_released, released_key


def map_key(key: str) -> MappedKey | IgnoredKey:
    module_key = released_key(key)
    if module_key is None:
        return IgnoredKey("a constant buffer, recomputed")
    return MappedKey(cast(Module, module_key[0]), module_key[1])


SOURCES = [
    Source(
        name="SmolVLM2",
        role="whole",
        model=SmolVLM2,
        signature=r"model\.text_model\.embed_tokens\.weight",
        map_key=map_key,
        download_from="huggingface.co/HuggingFaceTB/SmolVLM2-256M-Video-Instruct or "
        "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
        check=check_released,
    )
]
