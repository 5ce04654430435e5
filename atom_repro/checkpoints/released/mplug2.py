"""Key mappings of the released mPLUG2 caption checkpoint, as a whole or as a video encoder.

Source of the keys: X-PLUG/mPLUG-2. Most of what the file holds never runs for captions. The names
of the universal layers and of the decoder are kept, the visual tower's are not.
"""

import re

from atom_repro.checkpoints.released.source import IgnoredKey, MappedKey, Source
from atom_repro.models.mplug2 import MPlug2
from atom_repro.models.mplug2plus import MPlug2Plus

_VISUAL = "visual_encoder.visual."
_KEYS = {
    "class_embedding": "cls",
    "positional_embedding": "pos",
    "conv1.weight": "patch.weight",
    **{f"{n}.{kind}": f"{n}.{kind}" for n in ("ln_pre", "ln_post") for kind in ("weight", "bias")},
}
_BLOCK_KEYS = {
    "attn.in_proj_weight": "attn.in_proj_weight",
    "attn.in_proj_bias": "attn.in_proj_bias",
    **{
        f"{source_name}.{kind}": f"{name}.{kind}"
        for source_name, name in {
            "attn.out_proj": "attn.out_proj", "ln_1": "ln1", "ln_2": "ln2",
            "mlp.c_fc": "fc1", "mlp.c_proj": "fc2",
            **{f"lmhra{i}.{a}": f"t{i}.{b}" for i in (1, 2) for a, b in (
                ("ln", "norm"), ("down_proj", "down"), ("conv", "dw"), ("up_proj", "up"))},
        }.items()
        for kind in ("weight", "bias")
    },
}  # fmt: skip
_BLOCK_PATTERN = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_UNIVERSAL_LAYER = re.compile(
    r"text_encoder\.encoder\.layer\.(22|23)\."
    r"((attention|crossattention|intermediate|output)\..+|latents)"
)
_DECODER_KEY = re.compile(
    r"text_decoder\.(bert\.embeddings\.(word_embeddings|position_embeddings|"
    r"token_type_embeddings|LayerNorm)\..+|bert\.encoder\.layer\.\d+\."
    r"(attention|crossattention|intermediate|output)\..+|cls\.predictions\..+)"
)
_UNUSED = {
    r"fusion_encoder\.": "the fusion encoder does not run for captions",
    r"visual_encoder\.(transformer|token_embedding|ln_final)\.": "CLIP's text tower does not run",
    r"visual_encoder\.(positional_embedding|text_projection|logit_scale)$":
        "CLIP's text tower does not run",
    r"visual_encoder\.visual\.proj$": "the projection to CLIP's shared space is not used",
    r".*\.position_ids$": "a constant buffer, recomputed",
    r".*_vision\.": "the second feed-forwards do not run for captions",
    r"text_decoder\..*\.latents$": "the decoder's latents are never read",
    r"text_encoder\.(embeddings|pooler|cls)\.": "there is no BERT text input for captions",
    r"text_encoder\.encoder\.layer\.(\d|1\d|2[01])\.": "text layers 0 to 21 do not run",
}  # fmt: skip


def map_whole_key(key: str) -> MappedKey | IgnoredKey | None:
    """Map a key to the encoder (with universal layers) or the decoder of mPLUG2."""
    for pattern, rule in _UNUSED.items():
        if re.match(pattern, key):
            return IgnoredKey(rule)
    if key.startswith(_VISUAL):
        return _map_visual_key(key.removeprefix(_VISUAL))
    if key.startswith("visn_emb_norm."):
        return MappedKey("encoder", f"uni.out.{key.removeprefix('visn_emb_norm.')}")
    if match := _UNIVERSAL_LAYER.fullmatch(key):
        layer, name = match.group(1), match.group(2)
        if name == "latents":
            ignored = IgnoredKey("only layer 22 reads its latents")
            return MappedKey("encoder", "uni.latents") if layer == "22" else ignored
        return MappedKey("encoder", f"uni.{'pool' if layer == '22' else 'bcast'}.{name}")
    if _DECODER_KEY.fullmatch(key):
        return MappedKey("decoder", key.removeprefix("text_decoder."))
    return None


def map_video_key(key: str) -> MappedKey | IgnoredKey | None:
    """Map a key to the encoder alone: visual tower, temporal modules, universal layers if any."""
    mapped = map_whole_key(key)
    if not isinstance(mapped, MappedKey):
        return mapped
    if mapped.module == "decoder":
        return IgnoredKey("the text decoder is another source's")
    if mapped.key.startswith("uni."):
        return MappedKey("encoder", mapped.key, if_absent="the model has no such universal layer")
    return mapped


def _map_visual_key(name: str) -> MappedKey | None:
    if name in _KEYS:
        return MappedKey("encoder", _KEYS[name])
    match = _BLOCK_PATTERN.fullmatch(name)
    if match and match.group(2) in _BLOCK_KEYS:
        return MappedKey("encoder", f"blocks.{match.group(1)}.{_BLOCK_KEYS[match.group(2)]}")
    return None


_SIGNATURE = r"visual_encoder\.visual\.class_embedding"
_DOWNLOAD = (
    "mPLUG2_MSRVTT_Caption.pth (about 10 GB), linked from the model zoo of "
    "github.com/X-PLUG/mPLUG-2, under the terms stated there"
)
SOURCES = [
    Source(
        name="mPLUG2 (video encoder)",
        role="video",
        model=MPlug2Plus,
        signature=_SIGNATURE,
        map_key=map_video_key,
        download_from=_DOWNLOAD,
        new={r"(connector|connector_norm)\..+": "mPLUG2 has no connector"},
    ),
    Source(
        name="mPLUG2",
        role="whole",
        model=MPlug2,
        signature=_SIGNATURE,
        map_key=map_whole_key,
        download_from=_DOWNLOAD,
    ),
]
