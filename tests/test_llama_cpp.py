"""llama.cpp as a peer: its file says what the decoder is, and it computes what the decoder does."""

import pytest
import torch

from atom_repro.datatypes import AtomError
from atom_repro.models.text_decoder import TextDecoder, TextDecoderConfig, rope_frequencies
from atom_repro.peers import llama_cpp
from atom_repro.peers.peer import Shape, Work, relative_error

gguf = pytest.importorskip("gguf")
CONFIG = TextDecoderConfig(
    vocabulary=96, width=64, layers=2, heads=4, kv_heads=2, head_width=16, mlp_width=128,
    rope_theta=1e4, rope_factor=8.0, rope_original_context=64, max_positions=64,
)  # fmt: skip
PREFILL = Shape("prefill", "prefill", prefix=9)
STEP = Shape("step_2x2", "step", prefix=9, allocated=3, clips=2, beams=2)


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    decoder = TextDecoder(CONFIG).eval().requires_grad_(False)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # so that no position is like another
    return decoder


def test_the_file_has_the_weights_under_their_names(decoder, tmp_path):
    llama_cpp.write_gguf(decoder, tmp_path / "decoder.gguf")
    reader = gguf.GGUFReader(tmp_path / "decoder.gguf")
    tensors = {
        t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy())
        for t in reader.tensors
    }
    assert len(tensors) == 3 + 9 * CONFIG.layers
    attention = decoder.model.layers[1].self_attn
    queries = attention.q_proj.weight.view(CONFIG.heads, 2, 8, CONFIG.width)
    written = tensors["blk.1.attn_q.weight"].view(CONFIG.heads, 8, 2, CONFIG.width)
    for i in range(2):
        assert (written[:, :, i] - queries[:, i]).abs().max() < 0.01
    assert (tensors["token_embd.weight"] - decoder.lm_head.weight).abs().max() < 0.01
    slowed = 1e4 ** (-torch.arange(0, 16, 2) / 16) / tensors["rope_freqs.weight"]
    assert torch.allclose(slowed, rope_frequencies(CONFIG).float())
    assert reader.fields["llama.attention.head_count_kv"].contents() == 2


def test_a_width_that_blocks_do_not_divide_is_one_line(tmp_path):
    config = TextDecoderConfig(
        vocabulary=8, width=48, layers=1, heads=2, kv_heads=2, head_width=24, mlp_width=64,
        rope_theta=1e4,
    )  # fmt: skip
    with pytest.raises(AtomError, match=r"blocks of 32; token_embd\.weight is 48 wide"):
        llama_cpp.write_gguf(TextDecoder(config), tmp_path / "decoder.gguf")


def test_prefill_and_steps_are_those_of_the_decoder(decoder, tmp_path):
    pytest.importorskip("llama_cpp", reason="no llama.cpp: `pip install -e '.[llama]'`")
    prompt = torch.randn(PREFILL.prefix, CONFIG.width, generator=torch.Generator().manual_seed(5))
    opened = llama_cpp.build().open(
        Work(decoder, {}, {PREFILL: (prompt,), STEP: ()}, tmp_path, threads=1)
    )
    (logits,) = opened["prefill"]()
    assert relative_error(logits, decoder.prefill(prompt[None])[0]) < 0.03
    assert opened["step_2x2"]() == []  # it has a cache of its own

    # The beams of a clip behind its prompt, by PyTorch and by llama.cpp.
    llama_cpp.write_gguf(decoder, tmp_path / "decoder.gguf")
    context = llama_cpp.Context(llama_cpp.load(tmp_path / "decoder.gguf"), STEP, CONFIG, 1)
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randn(1, STEP.prefix, CONFIG.width, generator=generator) for _ in range(2)]
    expected = []
    for clip, prompt in enumerate(prompts):
        _, cache = decoder.prefill(prompt)
        cache.open(2, 4)
        for position in range(STEP.prefix, STEP.prefix + 4):
            ids = [(7 * (2 * clip + beam) + position) % CONFIG.vocabulary for beam in range(2)]
            out = decoder.step(torch.tensor([ids]), cache)
        expected.append(out[0])
    for _ in range(2):  # a step leaves nothing behind for the next call
        assert relative_error(context.step(), torch.cat(expected)) < 0.03
