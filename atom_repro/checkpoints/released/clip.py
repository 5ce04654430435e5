"""Key mapping of CLIP's vision tower to a video encoder (`openai/clip-vit-large-patch14`).

Reads both a whole CLIPModel, whose keys begin with `vision_model.`, and a CLIPVisionModel, whose
keys may not. The temporal modules and the connector are not in it.
"""

import re

from torch import Tensor

from atom_repro.checkpoints.released.source import IgnoredKey, MappedKey, Source
from atom_repro.models.mplug2plus import MPlug2Plus

_KEYS = {
    "embeddings.class_embedding": "cls",
    "embeddings.position_embedding.weight": "pos",
    "pre_layrnorm.weight": "ln_pre.weight",  # the released spelling
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}
_BLOCK_KEYS = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
}
_BLOCK_PATTERN = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
CONNECTOR = r"(connector|connector_norm|uni)\..+"


def add_time_axis(weight_D3PP: Tensor) -> Tensor:
    """Convert an image patch embedding to a video one: (D, 3, 1, P, P)."""
    return weight_D3PP.unsqueeze(2)


def map_key(key: str) -> MappedKey | IgnoredKey | None:
    if re.match(r"text_model\.|text_projection\.|visual_projection\.|logit_scale$", key):
        return IgnoredKey("the text tower and the projections to the shared space are not used")
    name = key.removeprefix("vision_model.")
    if name == "embeddings.position_ids":
        return IgnoredKey("a constant buffer, recomputed")
    if name == "embeddings.patch_embedding.weight":
        return MappedKey("encoder", "patch.weight", add_time_axis)
    if name in _KEYS:
        return MappedKey("encoder", _KEYS[name])
    match = _BLOCK_PATTERN.fullmatch(name)
    if not match:
        return None
    block, inner, kind = match.groups()
    if inner in _BLOCK_KEYS:
        return MappedKey("encoder", f"blocks.{block}.{_BLOCK_KEYS[inner]}.{kind}")
    if inner in (qkv := [f"self_attn.{x}_proj" for x in "qkv"]):
        joined_key = f"blocks.{block}.attn.in_proj_{kind}"
        return MappedKey("encoder", joined_key, part=qkv.index(inner), parts=3)
    return None


SOURCES = [
    Source(
        name="CLIP",
        role="video",
        model=MPlug2Plus,
        signature=r"(vision_model\.)?pre_layrnorm\.weight",
        map_key=map_key,
        download_from="huggingface.co/openai/clip-vit-large-patch14 (open; terms: "
        "github.com/openai/CLIP)",
        new={
            r"blocks\.\d+\.t[12]\..+": "CLIP has no temporal modules",
            CONNECTOR: "CLIP has no connector",
        },
        config_keys={
            "encoder.heads": "num_attention_heads",
            "encoder.patch_size": "patch_size",
            "encoder.image_size": "image_size",
        },
    )
]
