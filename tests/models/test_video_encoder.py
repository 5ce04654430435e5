"""The video encoder against transformers' CLIP, its two forms, and the published counts."""

import pytest
import torch
import yaml
from conftest import small_model
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from atom_repro.config import CONF
from atom_repro.datatypes import AtomError
from atom_repro.models.mplug2plus import build
from atom_repro.models.video_encoder import VideoEncoder


def wake_temporal_modules(encoder: VideoEncoder) -> None:
    for block in encoder.blocks:
        for module in (block.t1, block.t2):
            nn.init.normal_(module.up.weight, std=0.2)


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_forms_agree_and_share_one_state(frames, stem):
    torch.manual_seed(0)
    config = small_model(encoder={"stem": stem}).encoder
    folded, reference = VideoEncoder(config, "folded"), VideoEncoder(config, "reference")
    wake_temporal_modules(folded)
    reference.load_state_dict(folded.checkpoint_state_dict())
    back = VideoEncoder(config, "folded")
    back.load_state_dict(reference.state_dict())
    with torch.no_grad():
        expected = folded.eval()(frames).tokens
        torch.testing.assert_close(reference.eval()(frames).tokens, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(back.eval()(frames).tokens, expected, atol=0, rtol=0)
    assert expected.shape == (4, config.visual_tokens, 48)


def test_equals_clip_while_temporal_modules_are_zero(frames):
    torch.manual_seed(0)
    encoder = VideoEncoder(small_model().encoder).eval()
    clip = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            image_size=32, patch_size=8, hidden_act="quick_gelu", layer_norm_eps=1e-5,
        )
    ).eval()  # fmt: skip
    theirs = {k.removeprefix("vision_model."): v for k, v in clip.state_dict().items()}
    ours = {
        "cls": theirs["embeddings.class_embedding"],
        "pos": theirs["embeddings.position_embedding.weight"],
        "patch.weight": theirs["embeddings.patch_embedding.weight"],
    }
    for name, module in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        ours |= {f"{name}.{p}": theirs[f"{module}.{p}"] for p in ("weight", "bias")}
    for i in range(2):
        layer = f"encoder.layers.{i}"
        for p in ("weight", "bias"):
            parts = [theirs[f"{layer}.self_attn.{n}_proj.{p}"] for n in "qkv"]
            ours[f"blocks.{i}.attn.in_proj.{p}"] = torch.cat(parts)
            for name, module in (
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln1", "layer_norm1"),
                ("ln2", "layer_norm2"),
                ("fc1", "mlp.fc1"),
                ("fc2", "mlp.fc2"),
            ):
                ours[f"blocks.{i}.{name}.{p}"] = theirs[f"{layer}.{module}.{p}"]
    missing = encoder.load_state_dict(ours, strict=False)
    assert not missing.unexpected_keys
    assert all(".t1." in k or ".t2." in k or "connector" in k for k in missing.missing_keys)

    with torch.no_grad():
        latents = encoder.embed(frames)
        pixels = (frames.flatten(0, 1) / 255 - encoder.mean) / encoder.std
        hidden = clip(pixels).last_hidden_state  # before post_layernorm
        hidden = hidden.view(4, 3, *hidden.shape[1:])
        cls = clip.post_layernorm(hidden[:, :, 0].mean(1))
        patches = clip.post_layernorm(hidden[:, :, 1:].flatten(1, 2))
    torch.testing.assert_close(latents[:, 0], cls, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(latents[:, 1:], patches, atol=1e-5, rtol=1e-5)


def test_temporal_modules_carry_information_between_frames(frames):
    torch.manual_seed(0)
    encoder = VideoEncoder(small_model().encoder).eval()
    wake_temporal_modules(encoder)
    changed = frames.clone()
    changed[:, 2] = 255 - changed[:, 2]
    with torch.no_grad():
        before, after = encoder.embed(frames), encoder.embed(changed)
    second_frame = slice(1 + 16, 1 + 32)  # its neighbour changed, it did not
    assert (before[:, second_frame] - after[:, second_frame]).abs().max() > 1e-3


def test_full_size_has_the_published_counts():
    numbers = yaml.safe_load((CONF / "model/mplug2plus.yaml").read_text())
    del numbers["_target_"]
    with torch.device("meta"):
        full = build(**numbers)
        encoder, decoder = VideoEncoder(full.encoder, "reference"), full.make_decoder()
    connector = sum(p.numel() for n, p in encoder.named_parameters() if "connector" in n)
    total = sum(p.numel() for m in (encoder, decoder) for p in m.parameters())
    conv3d = sum(
        p.numel() for m in encoder.modules() if isinstance(m, nn.Conv3d) for p in m.parameters()
    )
    assert connector == 2_101_248
    assert sum(p.numel() for p in encoder.parameters()) - connector == 353_781_760
    assert total == 1_591_697_408
    assert conv3d == 51_105_792  # Table 9's Conv3d row, the one that fixes the encoder
    assert full.encoder.visual_tokens == 97


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"image_size": 33}, "model.encoder.image_size"),
        ({"heads": 5}, "model.encoder.heads"),
        ({"grid": 9}, "model.encoder.grid"),
    ],
)
def test_impossible_numbers_name_their_key(change, key):
    with pytest.raises(AtomError, match=key):
        small_model(encoder=change)
