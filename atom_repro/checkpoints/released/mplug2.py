"""The released mPLUG2 caption checkpoint: the whole of mPLUG2, or the start of mPLUG2+'s encoder.

Source of the keys: X-PLUG/mPLUG-2. Most of what the file holds never runs for captions. The names
of the universal layers and of the decoder are kept, the visual tower's are not.
"""

import re

from atom_repro.checkpoints.released.source import Ignored, Placed, Source

_VISUAL = "visual_encoder.visual."
_PLAIN = {
    "class_embedding": "cls",
    "positional_embedding": "pos",
    "conv1.weight": "patch.weight",
    **{f"{n}.{kind}": f"{n}.{kind}" for n in ("ln_pre", "ln_post") for kind in ("weight", "bias")},
}
_IN_BLOCK = {
    "attn.in_proj_weight": "attn.in_proj_weight",
    "attn.in_proj_bias": "attn.in_proj_bias",
    **{
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in {
            "attn.out_proj": "attn.out_proj", "ln_1": "ln1", "ln_2": "ln2",
            "mlp.c_fc": "fc1", "mlp.c_proj": "fc2",
            **{f"lmhra{i}.{a}": f"t{i}.{b}" for i in (1, 2) for a, b in (
                ("ln", "norm"), ("down_proj", "down"), ("conv", "dw"), ("up_proj", "up"))},
        }.items()
        for kind in ("weight", "bias")
    },
}  # fmt: skip
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_UNIVERSAL = re.compile(
    r"text_encoder\.encoder\.layer\.(22|23)\."
    r"((attention|crossattention|intermediate|output)\..+|latents)"
)
_DECODER = re.compile(
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
    r".*\.position_ids$": "positions are counted, not stored",
    r".*_vision\.": "the second feed-forwards do not run for captions",
    r"text_decoder\..*\.latents$": "the decoder's latents are never read",
    r"text_encoder\.(embeddings|pooler|cls)\.": "there is no BERT text input for captions",
    r"text_encoder\.encoder\.layer\.(\d|1\d|2[01])\.": "text layers 0 to 21 do not run",
}  # fmt: skip


def place_whole(key: str) -> Placed | Ignored | None:
    """Encoder, universal layers and decoder."""
    for pattern, rule in _UNUSED.items():
        if re.match(pattern, key):
            return Ignored(rule)
    if key.startswith(_VISUAL):
        return _visual(key.removeprefix(_VISUAL))
    if key.startswith("visn_emb_norm."):
        return Placed("encoder", f"uni.out.{key.removeprefix('visn_emb_norm.')}")
    if found := _UNIVERSAL.fullmatch(key):
        layer, name = found.group(1), found.group(2)
        if name == "latents":
            unread = Ignored("only layer 22 reads its latents")
            return Placed("encoder", "uni.latents") if layer == "22" else unread
        return Placed("encoder", f"uni.{'pool' if layer == '22' else 'bcast'}.{name}")
    if _DECODER.fullmatch(key):
        return Placed("decoder", key.removeprefix("text_decoder."))
    return None


def place_video(key: str) -> Placed | Ignored | None:
    """The visual tower with its trained temporal modules; universal layers if the model has any."""
    placed = place_whole(key)
    if not isinstance(placed, Placed):
        return placed
    if placed.module == "decoder":
        return Ignored("the text decoder is another source's")
    if placed.key.startswith("uni."):
        return Placed("encoder", placed.key, spare="the model has no such universal layer")
    return placed


def _visual(name: str) -> Placed | None:
    if name in _PLAIN:
        return Placed("encoder", _PLAIN[name])
    found = _BLOCK.fullmatch(name)
    if found and found.group(2) in _IN_BLOCK:
        return Placed("encoder", f"blocks.{found.group(1)}.{_IN_BLOCK[found.group(2)]}")
    return None


_SIGNATURE = r"visual_encoder\.visual\.class_embedding"
_HOW = (
    "mPLUG2_MSRVTT_Caption.pth (about 10 GB), linked from the model zoo of "
    "github.com/X-PLUG/mPLUG-2, under the terms stated there"
)
SOURCES = [
    Source(
        name="mPLUG2 (video encoder)",
        role="video",
        signature=_SIGNATURE,
        place=place_video,
        how=_HOW,
        new={r"(connector|connector_norm)\..+": "mPLUG2 has no connector"},
    ),
    Source(name="mPLUG2", role="whole", signature=_SIGNATURE, place=place_whole, how=_HOW),
]
