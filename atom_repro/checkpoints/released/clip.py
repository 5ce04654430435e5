"""CLIP's vision half as the start of a video encoder (`openai/clip-vit-large-patch14`).

Reads both a whole CLIPModel, whose keys begin with `vision_model.`, and a CLIPVisionModel, whose
keys may not. The temporal modules and the connector are not in it.
"""

import re

from torch import Tensor

from atom_repro.checkpoints.released.source import Ignored, Placed, Source

_PLAIN = {
    "embeddings.class_embedding": "cls",
    "embeddings.position_embedding.weight": "pos",
    "pre_layrnorm.weight": "ln_pre.weight",  # the released spelling
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}
_IN_BLOCK = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
}
_BLOCK = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
CONNECTOR = r"(connector|connector_norm|uni)\..+"


def one_frame(weight_D3PP: Tensor) -> Tensor:
    """A patch embedding of images as one of clips: (D, 3, 1, P, P)."""
    return weight_D3PP.unsqueeze(2)


def place(key: str) -> Placed | Ignored | None:
    if re.match(r"text_model\.|text_projection\.|visual_projection\.|logit_scale$", key):
        return Ignored("the text tower and the projections to the shared space are not used")
    name = key.removeprefix("vision_model.")
    if name == "embeddings.position_ids":
        return Ignored("positions are counted, not stored")
    if name == "embeddings.patch_embedding.weight":
        return Placed("encoder", "patch.weight", one_frame)
    if name in _PLAIN:
        return Placed("encoder", _PLAIN[name])
    found = _BLOCK.fullmatch(name)
    if not found:
        return None
    block, inner, kind = found.groups()
    if inner in _IN_BLOCK:
        return Placed("encoder", f"blocks.{block}.{_IN_BLOCK[inner]}.{kind}")
    if inner in (qkv := [f"self_attn.{x}_proj" for x in "qkv"]):
        joined = f"blocks.{block}.attn.in_proj_{kind}"
        return Placed("encoder", joined, part=qkv.index(inner), parts=3)
    return None


SOURCES = [
    Source(
        name="CLIP",
        role="video",
        signature=r"(vision_model\.)?pre_layrnorm\.weight",
        place=place,
        how="huggingface.co/openai/clip-vit-large-patch14 (open; terms: github.com/openai/CLIP)",
        new={
            r"blocks\.\d+\.t[12]\..+": "CLIP has no temporal modules",
            CONNECTOR: "CLIP has no connector",
        },
        numbers={
            "encoder.heads": "num_attention_heads",
            "encoder.patch_size": "patch_size",
            "encoder.image_size": "image_size",
        },
    )
]
