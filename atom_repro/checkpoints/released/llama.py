"""Key mapping of Llama 3.2 to the text decoder (`meta-llama/Llama-3.2-1B`, `-Instruct`)."""

import re

from atom_repro.checkpoints.released.source import IgnoredKey, MappedKey, Source
from atom_repro.models.mplug2plus import MPlug2Plus

_DECODER_KEY = re.compile(
    r"model\.(embed_tokens|norm|layers\.\d+\.(input_layernorm|post_attention_layernorm|"
    r"self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj))\.weight|lm_head\.weight"
)


def map_key(key: str) -> MappedKey | IgnoredKey | None:
    if key.endswith("rotary_emb.inv_freq"):
        return IgnoredKey("a constant buffer, recomputed")
    return MappedKey("decoder", key) if _DECODER_KEY.fullmatch(key) else None


SOURCES = [
    Source(
        name="Llama",
        role="text",
        model=MPlug2Plus,
        signature=r"model\.layers\.0\.mlp\.gate_proj\.weight",
        map_key=map_key,
        download_from="huggingface.co/meta-llama/Llama-3.2-1B or -Instruct (gated: accept the "
        "Llama 3.2 Community License there, then `hf auth login`)",
        config_keys={
            "decoder.heads": "num_attention_heads",
            "decoder.kv_heads": "num_key_value_heads",
            "decoder.norm_eps": "rms_norm_eps",
            "decoder.tied": "tie_word_embeddings",
        },
    )
]
