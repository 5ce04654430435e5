"""The decoder against transformers' Llama: prefill, cached steps, shared prefix, packed loss."""

import pytest
import torch
import torch.nn.functional as F
from conftest import small_model
from transformers import LlamaConfig, LlamaForCausalLM

from atom_repro.datatypes import AtomError
from atom_repro.models.mplug2plus import packed_loss
from atom_repro.models.text_decoder import TextDecoder


def pair(**changes):
    torch.manual_seed(0)
    config = small_model(decoder=changes).decoder
    scaling = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_factor != 1:
        scaling = {
            "rope_type": "llama3", "rope_theta": config.rope_theta, "factor": config.rope_factor,
            "low_freq_factor": config.rope_low, "high_freq_factor": config.rope_high,
            "original_max_position_embeddings": config.rope_original_context,
        }  # fmt: skip
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocabulary, hidden_size=config.width, head_dim=config.head_width,
            intermediate_size=config.mlp_width, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
            rms_norm_eps=config.norm_eps, max_position_embeddings=config.max_positions,
            rope_parameters=scaling, tie_word_embeddings=True, attention_bias=False,
        )
    ).eval()  # fmt: skip
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = TextDecoder(config).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize(
    "rope", [{}, {"rope_factor": 32.0, "rope_original_context": 16, "rope_theta": 500000.0}]
)
@torch.no_grad()
def test_prefill_and_cached_steps_equal_transformers(rope):
    ours, theirs = pair(**rope)
    ids = torch.randint(0, 300, (2, 20))
    expected = theirs(ids).logits
    torch.testing.assert_close(ours.lm_head(ours(ours.embed(ids))), expected, atol=1e-5, rtol=1e-5)
    logits, cache = ours.prefill(ours.embed(ids[:, :9]))
    torch.testing.assert_close(logits, expected[:, 8], atol=1e-5, rtol=1e-5)
    cache.open(beams=1, max_new_tokens=11)
    for t in range(9, 20):
        logits = ours.step(ids[:, t : t + 1], cache)
        torch.testing.assert_close(logits[:, 0], expected[:, t], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_beams_share_a_prefix_and_keep_their_own_past():
    ours, theirs = pair()
    prefix = torch.randint(0, 300, (2, 6))
    first = torch.randint(0, 300, (2, 3))
    second = torch.randint(0, 300, (2, 3))
    _, cache = ours.prefill(ours.embed(prefix))
    cache.open(beams=3, max_new_tokens=4)
    ours.step(first, cache)
    parent = torch.tensor([[2, 0, 0], [1, 1, 2]])
    cache.reorder(parent)
    logits = ours.step(second, cache)
    for clip in range(2):
        for beam in range(3):
            past = first[clip, parent[clip, beam]]
            whole = torch.cat((prefix[clip], past[None], second[clip, beam][None]))[None]
            expected = theirs(whole).logits[0, -1]
            torch.testing.assert_close(logits[clip, beam], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_interleaved_clips_do_not_disturb_each_other():
    ours, _ = pair()
    prefixes = [ours.embed(torch.randint(0, 300, (1, n))) for n in (5, 9)]
    tokens = torch.randint(0, 300, (2, 6))

    def steps(order):
        caches, out = {}, {0: [], 1: []}
        for clip in (0, 1):
            _, caches[clip] = ours.prefill(prefixes[clip])
            caches[clip].open(1, 6)
        for clip in order:
            t = len(out[clip])
            out[clip].append(ours.step(tokens[clip : clip + 1, t : t + 1], caches[clip]))
        return [torch.stack(out[clip]) for clip in (0, 1)]

    apart = steps([0] * 6 + [1] * 6)
    mixed = steps([0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1, 0])
    for a, b in zip(apart, mixed, strict=True):
        assert torch.equal(a, b)


def test_packed_captions_cost_what_separate_ones_do():
    ours, theirs = pair()
    prefix = ours.embed(torch.randint(3, 300, (2, 5))).detach()
    captions = torch.tensor(
        [[[7, 8, 9, 2], [5, 2, 0, 0], [6, 6, 2, 0]], [[4, 2, 0, 0], [9, 8, 7, 2], [3, 3, 3, 2]]]
    )
    packed = packed_loss(ours, prefix, captions, pad_id=0)
    losses = []
    for clip in range(2):
        for caption in captions[clip]:
            caption = caption[caption != 0]
            embeds = torch.cat((prefix[clip], theirs.model.embed_tokens(caption[:-1])))[None]
            logits = theirs(inputs_embeds=embeds).logits[0, 4:]
            losses.append(F.cross_entropy(logits, caption, reduction="none"))
    torch.testing.assert_close(packed, torch.cat(losses).mean(), atol=1e-5, rtol=1e-5)
    packed.backward()
    assert ours.lm_head.weight.grad.abs().sum() > 0


def test_a_sequence_beyond_the_table_is_named():
    ours, _ = pair()
    with pytest.raises(AtomError, match=r"model\.decoder\.max_positions"):
        ours(torch.zeros(1, 129, 48))
