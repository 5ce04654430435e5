"""mPLUG2+: a CLIP-ViT video encoder whose tokens are a prefix of a Llama decoder (paper section 4).

`build` checks the hyperparameters of a `conf/model` file and returns the configurations of both
modules; `make_encoder` and `make_decoder` allocate the weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from atom_repro.datatypes import AtomError
from atom_repro.models.text_decoder import TextDecoder, TextDecoderConfig
from atom_repro.models.text_decoder_export import TEXT_DECODER_EXPORT
from atom_repro.models.video_encoder import COMPONENTS, Form, VideoEncoder, VideoEncoderConfig
from atom_repro.models.visual_tokens import VISUAL_PLACEHOLDER, VisualTokens
from atom_repro.models.vlm import SpecialTokens, TokenizerProtocol


@dataclass(frozen=True)
class MPlug2Plus:
    """Architecture of mPLUG2+, without weights."""

    name: str
    encoder: VideoEncoderConfig
    decoder: TextDecoderConfig
    form: Form
    prompt: str
    chat: bool
    writes_text = True
    unscored_ids = 0
    decoder_export = TEXT_DECODER_EXPORT

    @property
    def specials(self) -> SpecialTokens:
        return SpecialTokens(end="<|eot_id|>") if self.chat else SpecialTokens()

    @property
    def components(self) -> Mapping[str, Sequence[str]]:
        return {**COMPONENTS, "decoder": ("decoder.*",)}

    def make_encoder(self) -> VideoEncoder:
        return VideoEncoder(self.encoder, self.form)

    def make_decoder(self) -> TextDecoder:
        return TextDecoder(self.decoder)

    def prompt_ids(
        self, tokenizer: TokenizerProtocol, text: str, *, visual: VisualTokens | None
    ) -> list[int]:
        """Begin token, visual tokens, text; with `chat`, as the user turn of Llama's template."""
        video_ids = [VISUAL_PLACEHOLDER] * (visual.count if visual else 0)
        text_ids = tokenizer.encode(text) if text else []
        if not self.chat:
            return [tokenizer.begin_id, *video_ids, *text_ids]
        start, end = (tokenizer.special_id(f"<|{t}_header_id|>") for t in ("start", "end"))
        end_of_turn = tokenizer.special_id("<|eot_id|>")
        user, assistant, gap = (tokenizer.encode(t) for t in ("user", "assistant", "\n\n"))
        return [
            tokenizer.begin_id, start, *user, end, *gap, *video_ids, *text_ids, end_of_turn,
            start, *assistant, end, *gap,
        ]  # fmt: skip

    def training_ids(self, tokenizer: TokenizerProtocol, caption: str) -> list[int]:
        """Target ids of a caption for `caption_loss`, end-of-sequence included."""
        return [*tokenizer.encode(caption), tokenizer.end_id]

    def clean_text(self, text: str) -> str:
        return text

    def caption_loss(
        self,
        decoder: TextDecoder,
        visual: VisualTokens,
        captions_BRL: Tensor,
        tokenizer: TokenizerProtocol,
    ) -> Tensor:
        prompt_ids = self.prompt_ids(tokenizer, self.prompt, visual=visual)
        prefix = decoder.embed_prompt(visual, prompt_ids)
        return packed_loss(decoder, prefix, captions_BRL, pad_id=tokenizer.pad_id)


def build(
    *,
    name: str,
    form: str,
    prompt: str,
    chat: bool,
    encoder: Mapping[str, Any],
    decoder: Mapping[str, Any],
) -> MPlug2Plus:
    """Build the model of a `conf/model` file.

    Args:
        form: `folded` (what runs) or `reference` (what Table 9 counts).
        prompt: text between the visual tokens and the caption; empty for none.
        chat: whether the decoder is instruction-tuned and gets Llama 3's chat template.
        encoder: fields of `VideoEncoderConfig`, `output_width` taken from the decoder.
        decoder: fields of `TextDecoderConfig`.
    """
    if form not in ("folded", "reference"):
        raise AtomError(f"model.form={form!r} is neither 'folded' nor 'reference'")
    decoder_config = TextDecoderConfig(**decoder)
    encoder_config = VideoEncoderConfig(**encoder, output_width=decoder_config.width)
    return MPlug2Plus(name, encoder_config, decoder_config, form, prompt, chat)  # type: ignore[arg-type]


def packed_loss(
    decoder: TextDecoder,
    prefix_BPE: Tensor,
    captions_BRL: Tensor,
    *,
    pad_id: int,
) -> Tensor:
    """Mean cross-entropy of R packed captions per clip, which share one prefix.

    The R captions of a clip are concatenated behind one copy of its prefix, with a block mask
    between them and with positions that all start after the prefix: the loss equals that of R
    separate sequences (a test compares them), for the cost of one prefix.

    Args:
        captions_BRL: ids with end-of-sequence, padded with `pad_id`.
    """
    B, R, L = captions_BRL.shape
    P = prefix_BPE.shape[1]
    inputs = captions_BRL[:, :, :-1]  # the first token is predicted by the prefix's last position
    embeds = decoder.embed(inputs.reshape(B, -1))
    mask = shared_prefix_mask(P, R, L - 1, prefix_BPE.device)
    positions = torch.cat((torch.arange(P), P + torch.arange(L - 1).repeat(R)))
    hidden = decoder(
        torch.cat((prefix_BPE, embeds), dim=1), mask, positions=positions.to(prefix_BPE.device)
    )
    first = hidden[:, P - 1 : P, None].transpose(1, 2).expand(B, R, 1, -1)
    rest = hidden[:, P:].reshape(B, R, L - 1, -1)
    predicting = torch.cat((first, rest), dim=2)
    target_mask = captions_BRL != pad_id
    logits = decoder.lm_head(predicting[target_mask])
    return F.cross_entropy(logits.float(), captions_BRL[target_mask])


def shared_prefix_mask(prefix: int, captions: int, length: int, device: torch.device) -> Tensor:
    """Causal mask (S, S), True where allowed: a caption attends to the prefix and itself only."""
    total = prefix + captions * length
    owner = torch.full((total,), -1, device=device)
    owner[prefix:] = torch.arange(captions, device=device).repeat_interleave(length)
    causal = torch.ones(total, total, dtype=torch.bool, device=device).tril()
    return causal & ((owner[None, :] == -1) | (owner[None, :] == owner[:, None]))
