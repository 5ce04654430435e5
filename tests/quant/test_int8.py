"""int8: what it changes is listed, it survives its file, and changing nothing is an error."""

import pytest
import torch
from torch import nn

from atom_repro.checkpoints.module_files import save_decoder, save_encoder
from atom_repro.datatypes import AtomError
from atom_repro.engines.eager import EagerEngine
from atom_repro.models.generation import GenerationSettings
from atom_repro.models.video_encoder import VideoEncoder
from atom_repro.quant import int8

RECIPE = int8.build(linear="dynamic", embedding="weight_only")


def test_names_what_it_changed_and_why_it_left_the_rest(model):
    encoder = model.make_encoder()
    report = RECIPE.quantise(encoder)
    block = ["t1.down", "t1.up", "attn.in_proj", "attn.out_proj", "t2.down", "t2.up", "fc1", "fc2"]
    assert set(report.changed) == {"connector"} | {f"blocks.{i}.{n}" for i in (0, 1) for n in block}
    assert "recipe" in report.skipped["Conv2d"]["reason"]
    assert report.bytes_after < 0.6 * report.bytes_before

    decoder = model.make_decoder()
    report = RECIPE.quantise(decoder)
    assert {"lm_head", "model.embed_tokens"} <= set(report.changed)
    assert set(report.skipped) == {"RMSNorm"}


def test_bytes_are_a_byte_a_weight_and_a_scale_a_row():
    module = nn.Sequential(nn.Linear(64, 16, bias=False), nn.LayerNorm(16))
    report = RECIPE.quantise(module)
    norm = 2 * 16 * 4
    assert report.bytes_before == 64 * 16 * 4 + norm
    scales = report.bytes_after - 64 * 16 - norm
    assert scales >= 16 * 4  # one in fp32 for each of 16 rows, zero points beside it perhaps
    assert scales <= 16 * (4 + 8)


def test_reference_form_leaves_attention_and_conv3d_in_fp32(model):
    reference = VideoEncoder(model.encoder, "reference")
    report = RECIPE.quantise(reference)
    assert set(report.changed) == {
        "connector",
        *(f"blocks.{i}.fc{j}" for i in (0, 1) for j in (1, 2)),
    }
    assert {"Conv3d", "MultiheadAttention", "NonDynamicallyQuantizableLinear"} <= set(
        report.skipped
    )


@torch.inference_mode()
def test_file_gives_back_the_same_module_without_fp32_weights(
    saved, model, tokenizer, frames, tmp_path
):
    encoder = EagerEngine().load_encoder(saved / "fp32/encoder", model)
    decoder = EagerEngine().load_decoder(saved / "fp32/decoder", model)
    exact = encoder(frames).tokens
    RECIPE.quantise(encoder.network)
    RECIPE.quantise(decoder.network)
    save_encoder(tmp_path / "e", model, encoder.network, RECIPE, "random")
    save_decoder(tmp_path / "d", model, decoder.network, tokenizer, RECIPE, "random")
    again = EagerEngine().load_encoder(tmp_path / "e", model, RECIPE)
    decoder_again = EagerEngine().load_decoder(tmp_path / "d", model, RECIPE)
    with pytest.raises(AtomError, match="was stored as int8, the configuration asks for fp32"):
        EagerEngine().load_encoder(tmp_path / "e", model)
    visual = encoder(frames)
    assert torch.equal(again(frames).tokens, visual.tokens)
    assert 0 < (visual.tokens - exact).abs().max() < 0.2 * exact.abs().max()
    settings = GenerationSettings(max_new_tokens=6)
    assert decoder_again.generate(visual, "", settings) == decoder.generate(visual, "", settings)
    size = (tmp_path / "d/model.safetensors").stat().st_size
    assert size < 0.6 * (saved / "fp32/decoder/model.safetensors").stat().st_size


def test_nothing_to_change_is_an_error():
    with pytest.raises(AtomError, match="found nothing to change in Sequential"):
        RECIPE.quantise(nn.Sequential(nn.LayerNorm(4)))


@pytest.mark.parametrize("wrong", [{"linear": "int4"}, {"embedding": "dynamic"}])
def test_unknown_recipe_is_named(wrong):
    with pytest.raises(AtomError, match=next(iter(wrong))):
        int8.build(**({"linear": "dynamic", "embedding": "none"} | wrong))
