"""A family with two feature levels: the decoder reads a shallow encoder and a deep one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from atom_repro.models.mplug2plus import MPlug2Plus
from atom_repro.models.mplug2plus import build as build_mplug2plus
from atom_repro.models.text_decoder import TextDecoder, TextDecoderConfig
from atom_repro.models.video_encoder import VideoEncoder, VideoEncoderConfig
from atom_repro.models.visual_tokens import VisualTokens


class TwoLevelEncoder(nn.Module):
    def __init__(self, config: VideoEncoderConfig) -> None:
        super().__init__()
        self.shallow = VideoEncoder(replace(config, layers=1))
        self.deep = VideoEncoder(config)
        self.tied: dict[str, str] = {}

    def forward(self, frames_BTCHW: Tensor) -> VisualTokens:
        shallow = self.shallow(frames_BTCHW).tokens
        return replace(self.deep(frames_BTCHW), features={"shallow": shallow})

    def checkpoint_state_dict(self) -> dict[str, Tensor]:
        return {
            f"{level}.{name}": value
            for level, encoder in (("shallow", self.shallow), ("deep", self.deep))
            for name, value in encoder.checkpoint_state_dict().items()
        }

    def init_buffers(self) -> None:
        self.shallow.init_buffers()
        self.deep.init_buffers()


class TwoLevelDecoder(TextDecoder):
    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__(config)
        self.mix = nn.Linear(2 * config.width, config.width, bias=False)

    def embed_prompt(self, visual: VisualTokens | None, ids: Sequence[int]) -> Tensor:
        if visual is not None:
            both = torch.cat((visual.tokens, visual.features["shallow"]), dim=2)
            visual = VisualTokens(self.mix(both))
        return super().embed_prompt(visual, ids)


@dataclass(frozen=True)
class TwoLevels(MPlug2Plus):
    @property
    def components(self) -> Mapping[str, Sequence[str]]:
        return {
            "visual.shallow": ("encoder.shallow.*",),
            "visual.deep": ("encoder.deep.*",),
            "decoder": ("decoder.*",),
        }

    def make_encoder(self) -> Any:
        return TwoLevelEncoder(self.encoder)

    def make_decoder(self) -> TwoLevelDecoder:
        return TwoLevelDecoder(self.decoder)


def build(*, name: str, encoder: Mapping[str, Any], decoder: Mapping[str, Any]) -> TwoLevels:
    """Build the model of `conf/model/two_levels.yaml`."""
    like = build_mplug2plus(
        name=name, form="folded", prompt="", chat=False, encoder=encoder, decoder=decoder
    )
    return TwoLevels(**vars(like))
