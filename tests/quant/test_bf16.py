"""bf16: half the bytes, tied weights stay tied, files give back the modules, near to fp32."""

import pytest
import torch

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.engines.eager import EagerEngine
from atom_repro.engines.roofline import caption_work
from atom_repro.models.generation import GenerationSettings
from atom_repro.quant import bf16, none
from atom_repro.quant.recipe import stored_bytes

BF16 = bf16.build()
SETTINGS = GenerationSettings(max_new_tokens=5, forbid_end=True)


@torch.inference_mode()
def test_files_have_half_the_bytes_and_give_back_the_modules(saved, model, frames):
    checkpoint, engine = Checkpoint(saved), EagerEngine()
    report = checkpoint.prepare(BF16, model)["decoder"]
    assert report["bytes_after"] == report["bytes_before"] // 2
    exact_encoder = engine.load_encoder(checkpoint.encoder(), model)
    exact = engine.load_decoder(checkpoint.decoder(), model)
    encoder = engine.load_encoder(checkpoint.encoder(BF16), model, BF16)
    decoder = engine.load_decoder(checkpoint.decoder(BF16), model, BF16)
    assert {p.dtype for p in decoder.network.parameters()} == {torch.bfloat16}
    assert decoder.network.lm_head.weight is decoder.network.model.embed_tokens.weight
    assert decoder.network.rope.dtype == torch.float32  # positions are no weights
    tokens, near = exact_encoder(frames).tokens, encoder(frames).tokens
    assert near.dtype == torch.bfloat16
    error = (near.float() - tokens).norm() / tokens.norm()
    assert 0 < error < 0.02  # eight bits of a number: 0.4 % a rounding

    BF16.quantise(exact.network)
    visual = encoder(frames)
    assert decoder.generate(visual, "", SETTINGS) == exact.generate(visual, "", SETTINGS)


def test_a_caption_reads_half_and_leaves_nothing_in_fp32(saved, model, tokenizer):
    work, exact = (caption_work(model, tokenizer, SETTINGS, q) for q in (BF16, none.build()))
    assert work.encode_operations == exact.encode_operations
    assert work.step_bytes == exact.step_bytes / 2
    assert (work.encode_fp32_operations, work.prefill_fp32_operations) == (0, 0)
    assert exact.encode_fp32_operations > 0
    network = model.make_decoder()
    assert stored_bytes(BF16, network) == stored_bytes(none.build(), network) / 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@torch.inference_mode()
def test_a_gpu_gives_what_the_host_gives(saved, model, frames):
    checkpoint, engine, gpu = Checkpoint(saved), EagerEngine(), torch.device("cuda")
    texts = []
    for device in (torch.device("cpu"), gpu):
        encoder = engine.load_encoder(checkpoint.encoder(), model, device=device)
        decoder = engine.load_decoder(checkpoint.decoder(), model, device=device)
        generated = decoder.generate(encoder(frames.to(device)), "", SETTINGS)
        texts.append([found.token_ids for found in generated])
    assert texts[0] == texts[1]
