"""llama.cpp as a peer: a Llama decoder in a GGUF file, weights in Q8_0 (int8, a scale for 32)."""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.models.text_decoder import TextDecoder, TextDecoderConfig, rope_frequencies
from atom_repro.peers.peer import Call, Shape, Work, calls, require_package

_EXTRA = "llama"
_BLOCK = 32  # weights that share a scale in Q8_0
# Names of a layer's tensors in GGUF, by those of `LlamaForCausalLM`.
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class LlamaCpp:
    """One model, and a context for each shape. The beams of a clip share the cells of its prompt,
    as llama.cpp's own parallel decoding does."""

    precision: str = "int8"

    def open(self, work: Work) -> Mapping[str, Call]:
        require_package("llama_cpp", extra=_EXTRA)
        require_package("gguf", extra=_EXTRA)
        if not isinstance(work.network, TextDecoder):
            raise AtomError("llama.cpp runs the decoder only; 'parts=[decoder]'")
        work.folder.mkdir(parents=True, exist_ok=True)
        path = work.folder / "decoder.gguf"
        write_gguf(work.network, path)
        model = load(path)
        contexts = {
            shape: Context(model, shape, work.network.config, work.threads) for shape in work.shapes
        }
        path.unlink()  # it is mapped

        def run(shape: Shape, arguments: tuple[Tensor, ...]) -> Sequence[Tensor]:
            if shape.method == "prefill":
                return [contexts[shape].prefill(arguments[0])]
            contexts[shape].step()
            # Behind a prompt of its own: the cache that the others are given cannot be set here.
            return []

        return calls(work, run)


def write_gguf(decoder: TextDecoder, path: Path) -> None:
    """Write a decoder as llama.cpp reads it: matrices in Q8_0, no vocabulary.

    Raises:
        AtomError: a width that Q8_0 cannot divide.
    """
    import gguf

    config = decoder.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocabulary)
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for name, tensor in _tensors(decoder):
        if tensor.dim() == 1:
            writer.add_tensor(name, tensor.numpy())
            continue
        if tensor.shape[1] % _BLOCK:
            raise AtomError(f"Q8_0 has blocks of {_BLOCK}; {name} is {tensor.shape[1]} wide")
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(decoder: TextDecoder) -> Iterator[tuple[str, Tensor]]:
    """Tensors in fp32 by their names in GGUF."""
    config = decoder.config
    yield "token_embd.weight", decoder.model.embed_tokens.weight.detach()
    yield "output_norm.weight", decoder.model.norm.weight.detach()
    if not config.tied:
        yield "output.weight", decoder.lm_head.weight.detach()
    half = torch.arange(0, config.head_width, 2, dtype=torch.float64)
    plain = config.rope_theta ** (-half / config.head_width)
    yield "rope_freqs.weight", (plain / rope_frequencies(config)).float()
    for i, layer in enumerate(decoder.model.layers):
        for ours, theirs in _LAYER.items():
            module = layer.get_submodule(ours)
            weight = module.weight
            assert isinstance(weight, nn.Parameter)
            yield f"blk.{i}.{theirs}.weight", _rotary_pairs(weight.detach(), theirs, config)


def _rotary_pairs(weight: Tensor, name: str, config: TextDecoderConfig) -> Tensor:
    """Rows of queries and keys in GGUF's order: the two of a rotary pair beside each other rather
    than half a head apart."""
    if name not in ("attn_q", "attn_k"):
        return weight
    heads = config.heads if name == "attn_q" else config.kv_heads
    pairs = weight.view(heads, 2, config.head_width // 2, -1).transpose(1, 2)
    return pairs.reshape(weight.shape).contiguous()


@cache
def _quiet() -> Any:
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda level, text, data: None)


def load(path: Path) -> Any:
    """A model of a GGUF file, mapped.

    Raises:
        AtomError: llama.cpp does not read it.
    """
    import llama_cpp

    # Its messages would stand between ours. C keeps the function, so it must outlive the model.
    llama_cpp.llama_log_set(_quiet(), None)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        str(path).encode(), llama_cpp.llama_model_default_params()
    )
    if not model:
        raise AtomError(f"llama.cpp does not load {path.name}")
    return model


class Context:
    """A context of a model, with the cache that a shape needs."""

    def __init__(self, model: Any, shape: Shape, config: TextDecoderConfig, threads: int) -> None:
        import llama_cpp

        self._api, self._config, self._shape = llama_cpp, config, shape
        self._sequences = shape.clips * shape.beams
        cells = shape.clips * shape.prefix + self._sequences * (shape.allocated + 1)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = cells + 256
        settings.n_batch = settings.n_ubatch = max(shape.prefix, 64)
        settings.n_seq_max = self._sequences
        settings.kv_unified = True  # beams share the cells of their prompt
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(model, settings)
        if not self._context:
            raise AtomError(f"llama.cpp has no context of {cells} cells")
        self._memory = llama_cpp.llama_get_memory(self._context)
        if shape.method == "step":
            self._fill()

    def prefill(self, x_SE: Tensor) -> Tensor:
        """A prompt to the logits of the next token (1, V)."""
        self._api.llama_memory_clear(self._memory, True)
        self._decode(x_SE, range(len(x_SE)), [0] * len(x_SE), last_only=True)
        return self._logits([len(x_SE) - 1])

    def step(self) -> Tensor:
        """A token for each sequence to the logits of the next ones (B * K, V)."""
        end = self._shape.prefix + self._shape.allocated
        for sequence in range(self._sequences):
            self._api.llama_memory_seq_rm(self._memory, sequence, end, -1)
        self._decode(None, [end] * self._sequences, range(self._sequences))
        return self._logits(range(self._sequences))

    def _fill(self) -> None:
        """Prompts, each once for the beams of its clip, and what each beam has generated."""
        shape, generator = self._shape, torch.Generator().manual_seed(1)
        for clip in range(shape.clips):
            first = clip * shape.beams
            prompt = torch.randn(shape.prefix, self._config.width, generator=generator)
            self._decode(prompt, range(shape.prefix), [first] * shape.prefix, last_only=True)
            for other in range(first + 1, first + shape.beams):
                self._api.llama_memory_seq_cp(self._memory, first, other, 0, -1)
        for position in range(shape.prefix, shape.prefix + shape.allocated):
            self._decode(None, [position] * self._sequences, range(self._sequences))

    def _decode(
        self,
        x_SE: Tensor | None,
        positions: Sequence[int],
        sequences: Sequence[int],
        *,
        last_only: bool = False,
    ) -> None:
        """One call of llama.cpp: embeddings, or a token each where there are none."""
        width, n = self._config.width, len(positions)
        batch = self._api.llama_batch_init(n, 0 if x_SE is None else width, 1)
        try:
            batch.n_tokens = n
            if x_SE is not None:
                values = np.ascontiguousarray(x_SE.numpy(), dtype=np.float32)
                ctypes.memmove(batch.embd, values.ctypes.data, values.nbytes)
            for i, (position, sequence) in enumerate(zip(positions, sequences, strict=True)):
                if x_SE is None:
                    batch.token[i] = (7 * i + position) % self._config.vocabulary
                batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = position, 1, sequence
                batch.logits[i] = not last_only or i == n - 1
            if status := self._api.llama_decode(self._context, batch):
                raise AtomError(f"llama.cpp does not decode {self._shape.name} (status {status})")
        finally:
            self._api.llama_batch_free(batch)

    def _logits(self, rows: Sequence[int]) -> Tensor:
        size = (self._config.vocabulary,)
        found = [self._api.llama_get_logits_ith(self._context, row) for row in rows]
        return torch.from_numpy(np.stack([np.ctypeslib.as_array(f, size) for f in found]))


def build() -> LlamaCpp:
    """Build the peer of `conf/peer/llamacpp_int8.yaml`."""
    return LlamaCpp()
