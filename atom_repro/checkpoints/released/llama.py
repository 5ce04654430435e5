"""Llama 3.2 as the text decoder (`meta-llama/Llama-3.2-1B` and `-Instruct`); names are the same."""

import re

from atom_repro.checkpoints.released.source import Ignored, Placed, Source

_OURS = re.compile(
    r"model\.(embed_tokens|norm|layers\.\d+\.(input_layernorm|post_attention_layernorm|"
    r"self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj))\.weight|lm_head\.weight"
)


def place(key: str) -> Placed | Ignored | None:
    if key.endswith("rotary_emb.inv_freq"):
        return Ignored("rotary frequencies are computed")
    return Placed("decoder", key) if _OURS.fullmatch(key) else None


SOURCES = [
    Source(
        name="Llama",
        role="text",
        signature=r"model\.layers\.0\.mlp\.gate_proj\.weight",
        place=place,
        how="huggingface.co/meta-llama/Llama-3.2-1B or -Instruct (gated: accept the Llama 3.2 "
        "Community License there, then `hf auth login`)",
        numbers={
            "decoder.heads": "num_attention_heads",
            "decoder.kv_heads": "num_key_value_heads",
            "decoder.norm_eps": "rms_norm_eps",
            "decoder.tied": "tie_word_embeddings",
        },
    )
]
