"""The video encoder of mPLUG2 and mPLUG2+: a CLIP-ViT with two temporal convolutions per block,
and the connector that projects its tokens to the decoder's width.

Source of the structure: mPLUG-2 (X-PLUG/mPLUG-2, `visual_transformers`), paper section 4. Tiny
and full size differ by the values in `VideoEncoderConfig` only.

Two forms share one set of weights. `reference` is written with nn.MultiheadAttention and Conv3d,
as the released code counts and quantises it (Table 9); `folded` computes the same with Linear and
Conv2d, which every int8 recipe and engine can run. Each form loads the state dict of the other.

Shapes: B clips, T frames, N patches per frame (g x g), D width, M visual tokens, E decoder width.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.models.attention import attention
from atom_repro.models.universal import UniversalLayers
from atom_repro.models.visual_tokens import VisualTokens

Form = Literal["folded", "reference"]
CONNECTORS = ("pooled", "mlp", "resampler", "universal")

# Parameter groups that training freezes or trains together (see `VideoLanguageModel.components`).
COMPONENTS = {
    "visual.clip": (
        "encoder.cls", "encoder.pos", "encoder.patch.*", "encoder.ln_*",
        "encoder.blocks.*.ln[12].*", "encoder.blocks.*.attn.*", "encoder.blocks.*.fc[12].*",
    ),
    "visual.temporal": ("encoder.blocks.*.t[12].*",),
    "visual.connector": ("encoder.connector*", "encoder.uni.*"),
}  # fmt: skip

# Statistics of CLIP's training images; part of the encoder so that callers pass plain uint8.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class VideoEncoderConfig:
    """Hyperparameters of the video encoder.

    `connector` says how the patches of all frames become visual tokens:
        pooled: patches averaged to grid x grid per frame, a norm and a Linear;
        mlp: the same with a second Linear after a GELU;
        resampler: `latents` tokens of mPLUG2's first universal layer, projected as in `pooled`;
        universal: both universal layers, then as in `pooled`.
    The two with universal layers project only where `output_width` is another width, since their
    output is normalised. `grid` is the side of the pooled patch grid of a frame: all but the
    resampler emit 1 + T * grid**2 tokens (97 at T=6, grid=4), and `image_size / patch_size` means
    no pooling. Universal layers have the heads and the inner width of the blocks.
    """

    frames: int
    image_size: int
    patch_size: int
    stem: Literal["patch", "conv"]
    width: int
    layers: int
    heads: int
    mlp_width: int
    temporal_width: int
    grid: int
    output_width: int
    dropout: float = 0.0
    connector: Literal["pooled", "mlp", "resampler", "universal"] = "pooled"
    latents: int = 50
    universal_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.connector not in CONNECTORS:
            raise AtomError(
                f"model.encoder.connector={self.connector!r} is none of {', '.join(CONNECTORS)}"
            )
        if self.image_size % self.patch_size:
            raise AtomError(
                f"model.encoder.image_size={self.image_size} is not a multiple of "
                f"model.encoder.patch_size={self.patch_size}"
            )
        if self.width % self.heads:
            raise AtomError(
                f"model.encoder.width={self.width} is not a multiple of "
                f"model.encoder.heads={self.heads}"
            )
        if self.grid > self.side:
            raise AtomError(
                f"model.encoder.grid={self.grid} exceeds the {self.side}x{self.side} patches of a "
                "frame; lower it or raise image_size"
            )

    @property
    def side(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size // self.patch_size

    @property
    def visual_tokens(self) -> int:
        return self.latents if self.connector == "resampler" else 1 + self.frames * self.grid**2

    @property
    def frames_apart(self) -> bool:
        """False: temporal convolutions mix neighbouring frames from the first block on."""
        return False

    @property
    def universal(self) -> bool:
        """Whether the connector has universal layers."""
        return self.connector in ("resampler", "universal")

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        # Checkpoints are compared by these; those older than `connector` have none of these keys.
        unused = () if self.universal else ("latents", "universal_dropout")
        for key in (*unused, *(("connector",) if self.connector == "pooled" else ())):
            del values[key]
        return values


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the activation CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class TemporalConv(nn.Module):
    """Bottleneck convolution over neighbouring frames at each patch: down, depthwise (3,1,1), up.

    The up-projection is initialised to zero, so that a block begins as plain CLIP.
    Source: `lmhra1`/`lmhra2` of the released code.
    """

    def __init__(self, width: int, inner: int, form: Form) -> None:
        super().__init__()
        self.form = form
        self.norm = nn.LayerNorm(width)
        if form == "reference":
            self.down: nn.Module = nn.Conv3d(width, inner, 1)
            self.dw: nn.Module = nn.Conv3d(inner, inner, (3, 1, 1), padding=(1, 0, 0), groups=inner)
            self.up: nn.Module = nn.Conv3d(inner, width, 1)
        else:
            self.down = nn.Linear(width, inner)
            self.dw = nn.Conv2d(inner, inner, (3, 1), padding=(1, 0), groups=inner)
            self.up = nn.Linear(inner, width)
        self.act = QuickGELU()
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x_BTND: Tensor) -> Tensor:
        x = self.norm(x_BTND)
        if self.form == "reference":
            x = x.permute(0, 3, 1, 2).unsqueeze(-1)  # (B, D, T, N, 1)
            x = self.up(self.act(self.dw(self.down(x))))
            return x.squeeze(-1).permute(0, 2, 3, 1)
        B, T, N, _ = x.shape
        x = self.down(x.flatten(0, 1)).view(B, T, N, -1).permute(0, 3, 1, 2)  # (B, C, T, N)
        x = self.act(self.dw(x)).permute(0, 2, 3, 1)
        return self.up(x.flatten(0, 1)).view(B, T, N, -1)


class FrameAttention(nn.Module):
    """Self-attention within each frame; the folded form of nn.MultiheadAttention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x_FSD: Tensor) -> Tensor:
        frames, tokens, width = x_FSD.shape
        qkv = self.in_proj(x_FSD).view(frames, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = attention(q, k, v)
        return self.out_proj(x.transpose(1, 2).reshape(frames, tokens, width))


class VideoBlock(nn.Module):
    """x += TC1(patches); x += MHA(LN x) within a frame; x += TC2(patches); x += MLP(LN x)."""

    def __init__(self, config: VideoEncoderConfig, form: Form) -> None:
        super().__init__()
        self.form = form
        self.t1 = TemporalConv(config.width, config.temporal_width, form)
        self.ln1 = nn.LayerNorm(config.width)
        if form == "reference":
            self.attn: nn.Module = nn.MultiheadAttention(
                config.width, config.heads, batch_first=True
            )
        else:
            self.attn = FrameAttention(config.width, config.heads)
        self.t2 = TemporalConv(config.width, config.temporal_width, form)
        self.ln2 = nn.LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.act = QuickGELU()
        self.fc2 = nn.Linear(config.mlp_width, config.width)
        self.drop = nn.Dropout(config.dropout)

    def _temporal(self, module: nn.Module, x_BTSD: Tensor) -> Tensor:
        # The class token bypasses the temporal modules, as in the released code.
        cls, patches = x_BTSD[:, :, :1], x_BTSD[:, :, 1:]
        return torch.cat((cls, patches + module(patches)), dim=2)

    def forward(self, x_BTSD: Tensor) -> Tensor:
        x = self._temporal(self.t1, x_BTSD)
        flat = self.ln1(x).flatten(0, 1)
        if self.form == "reference":
            mixed = self.attn(flat, flat, flat, need_weights=False)[0]
        else:
            mixed = self.attn(flat)
        x = x + self.drop(mixed).view_as(x)
        x = self._temporal(self.t2, x)
        flat = self.ln2(x).flatten(0, 1)
        return x + self.drop(self.fc2(self.act(self.fc1(flat)))).view_as(x)


class ConvStem(nn.Sequential):
    """Strided 3x3 convolutions down to one vector per patch; learns faster than a patch embedding
    on thousands of clips rather than billions of images. Chosen by `model.encoder.stem`."""

    def __init__(self, patch_size: int, width: int) -> None:
        halvings = patch_size.bit_length() - 1
        if 2**halvings != patch_size:
            raise AtomError(
                f"model.encoder.patch_size={patch_size} is not a power of two, "
                "which model.encoder.stem=conv needs"
            )
        widths = [max(16, width >> (halvings - i)) for i in range(1, halvings)] + [width]
        layers: list[nn.Module] = []
        channels = 3
        for i, out in enumerate(widths):
            layers.append(nn.Conv2d(channels, out, 3, stride=2, padding=1))
            if i < len(widths) - 1:
                layers += [nn.GroupNorm(1, out), nn.GELU()]
            channels = out
        super().__init__(*layers)


class VideoEncoder(nn.Module):
    """Frames (B, T, 3, H, W) uint8 to visual tokens (B, M, E) float.

    Pooling and projection belong to the encoder, so that the decoder is a plain language model
    that serves text-only tasks too.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: VideoEncoderConfig, form: Form = "folded") -> None:
        super().__init__()
        self.config = config
        self.form = form
        self.tied: dict[str, str] = {}
        if config.stem == "conv":
            self.patch: nn.Module = ConvStem(config.patch_size, config.width)
        elif form == "reference":
            size = (1, config.patch_size, config.patch_size)
            self.patch = nn.Conv3d(3, config.width, size, stride=size, bias=False)
        else:
            self.patch = nn.Conv2d(
                3, config.width, config.patch_size, stride=config.patch_size, bias=False
            )
        self.cls = nn.Parameter(torch.empty(config.width))
        self.pos = nn.Parameter(torch.empty(1 + config.side**2, config.width))
        nn.init.normal_(self.cls, std=config.width**-0.5)
        nn.init.normal_(self.pos, std=config.width**-0.5)
        self.ln_pre = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(VideoBlock(config, form) for _ in range(config.layers))
        self.ln_post = nn.LayerNorm(config.width)
        if config.universal:
            self.uni = UniversalLayers(
                latents=config.latents,
                width=config.width,
                heads=config.heads,
                mlp_width=config.mlp_width,
                dropout=config.universal_dropout,
                broadcast=config.connector == "universal",
            )
        self.connector_norm: nn.Module = nn.Identity()
        self.connector: nn.Module = nn.Identity()
        if not config.universal or config.width != config.output_width:
            self.connector_norm = nn.LayerNorm(config.width)
            self.connector = nn.Linear(config.width, config.output_width)
        if config.connector == "mlp":
            second = nn.Linear(config.output_width, config.output_width)
            self.connector = nn.Sequential(self.connector, nn.GELU(), second)
        self.init_buffers()
        self.register_load_state_dict_pre_hook(_accept_other_form)

    def init_buffers(self) -> None:
        """Create the non-persistent buffers; needed again after building on the meta device."""
        for name, values in (("mean", CLIP_MEAN), ("std", CLIP_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def patches(self, images_FCHW: Tensor) -> Tensor:
        """Patch embeddings of images (F, 3, H, W) uint8, before position: (F, N, D)."""
        x = ((images_FCHW / 255 - self.mean) / self.std).to(self.cls.dtype)
        if self.config.stem == "patch" and self.form == "reference":
            x = self.patch(x.unsqueeze(2)).squeeze(2)
        else:
            x = self.patch(x)
        return x.flatten(2).transpose(1, 2)

    def embed(self, frames_BTCHW: Tensor) -> Tensor:
        """Features before pooling (B, 1 + T*N, D): the frame-averaged class token, then patches."""
        B, T = frames_BTCHW.shape[:2]
        x = self.patches(frames_BTCHW.flatten(0, 1))
        cls = self.cls.expand(x.shape[0], 1, -1)
        x = self.ln_pre(torch.cat((cls, x), dim=1) + self.pos)
        x = x.view(B, T, *x.shape[1:])
        for block in self.blocks:
            x = block(x)
        cls = x[:, :, 0].mean(dim=1, keepdim=True)
        return self.ln_post(torch.cat((cls, x[:, :, 1:].flatten(1, 2)), dim=1))

    def connect(self, latents_BLD: Tensor) -> Tensor:
        """Project the output of `embed` to visual tokens of the decoder's width: (B, M, E)."""
        x = self.uni(latents_BLD) if self.config.universal else latents_BLD
        if self.config.connector != "resampler":
            x = self._pool(x)
        return self.connector(self.connector_norm(x))

    def _pool(self, x_BLD: Tensor) -> Tensor:
        """Average-pool each frame's patches to grid x grid: (B, 1 + T * grid**2, D)."""
        side, grid = self.config.side, self.config.grid
        if grid == side:
            return x_BLD
        cls, patches = x_BLD[:, :1], x_BLD[:, 1:]
        B, _, D = patches.shape
        x = patches.reshape(-1, side, side, D).permute(0, 3, 1, 2)
        x = F.adaptive_avg_pool2d(x, grid)
        return torch.cat((cls, x.permute(0, 2, 3, 1).reshape(B, -1, D)), dim=1)

    def forward(self, frames_BTCHW: Tensor) -> VisualTokens:
        tokens = self.connect(self.embed(frames_BTCHW))
        of_frames = self.config.connector != "resampler"  # its latents see all frames
        frame_tokens = (self.config.grid**2,) * frames_BTCHW.shape[1] if of_frames else ()
        return VisualTokens(tokens, frame_tokens)

    def checkpoint_state_dict(self) -> dict[str, Tensor]:
        """State dict in the names and shapes of the reference form, as checkpoints store it."""
        state = dict(self.state_dict())
        if self.form == "folded":
            for key in list(state):
                name, value = _to_reference(key, state.pop(key), self.config.stem)
                state[name] = value.contiguous()
        return state


def _to_reference(key: str, value: Tensor, stem: str) -> tuple[str, Tensor]:
    if ".attn.in_proj." in key:
        return key.replace(".attn.in_proj.", ".attn.in_proj_"), value
    if key.endswith((".down.weight", ".up.weight")):
        return key, value[..., None, None, None]
    if key.endswith(".dw.weight"):
        return key, value.unsqueeze(-1)
    if key == "patch.weight" and stem == "patch":
        return key, value.unsqueeze(2)
    return key, value


def _to_folded(key: str, value: Tensor, stem: str) -> tuple[str, Tensor]:
    if ".attn.in_proj_" in key:
        return key.replace(".attn.in_proj_", ".attn.in_proj."), value
    if key.endswith((".down.weight", ".up.weight")) and value.dim() == 5:
        return key, value[..., 0, 0, 0]
    if key.endswith(".dw.weight") and value.dim() == 5:
        return key, value.squeeze(-1)
    if key == "patch.weight" and stem == "patch" and value.dim() == 5:
        return key, value.squeeze(2)
    return key, value


def _accept_other_form(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    assert isinstance(module, VideoEncoder)
    stem = module.config.stem
    for key in [k for k in state if k.startswith(prefix)]:
        name, value = key.removeprefix(prefix), state.pop(key)
        if module.form == "folded":
            name, value = _to_folded(name, value, stem)
        elif value.dim() < 5:
            name, value = _to_reference(
                name.replace(".attn.in_proj_", ".attn.in_proj."), value, stem
            )
        state[prefix + name] = value
