"""mPLUG2+: a CLIP-ViT video encoder whose tokens are a prefix of a Llama decoder (paper section 4).

`build` checks the numbers of a `conf/model` file and returns the two modules' configurations
without touching memory; the modules are made when they are asked for. The training loss joins
them; nothing else needs both at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.models.text_decoder import TextDecoder, TextDecoderConfig
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.video_encoder import Form, VideoEncoder, VideoEncoderConfig


@dataclass(frozen=True)
class MPlug2Plus:
    """The architecture, not the weights."""

    name: str
    encoder: VideoEncoderConfig
    decoder: TextDecoderConfig
    form: Form
    prompt: str

    def make_encoder(self) -> VideoEncoder:
        return VideoEncoder(self.encoder, self.form)

    def make_decoder(self) -> TextDecoder:
        return TextDecoder(self.decoder)


def build(
    *,
    name: str,
    form: str,
    prompt: str,
    encoder: Mapping[str, Any],
    decoder: Mapping[str, Any],
) -> MPlug2Plus:
    """The model of a `conf/model` file.

    Args:
        form: `folded` (what runs) or `reference` (what Table 9 counts).
        prompt: text between the visual tokens and the caption; empty for none.
        encoder: the numbers of `VideoEncoderConfig`, `output_width` taken from the decoder.
        decoder: the numbers of `TextDecoderConfig`.
    """
    if form not in ("folded", "reference"):
        raise AtomError(f"model.form={form!r} is neither 'folded' nor 'reference'")
    text = TextDecoderConfig(**decoder)
    video = VideoEncoderConfig(**encoder, output_width=text.width)
    return MPlug2Plus(name, video, text, form, prompt)  # type: ignore[arg-type]


def caption_prefix(
    decoder: TextDecoder, visual_BME: Tensor | None, prompt_ids: Sequence[int], begin_id: int
) -> Tensor:
    """Embeddings before the first generated token: begin, visual tokens (if any), prompt."""
    rows = 1 if visual_BME is None else visual_BME.shape[0]
    device = decoder.rope.device
    begin = decoder.embed(torch.tensor([[begin_id]], device=device)).expand(rows, -1, -1)
    parts = [begin]
    if visual_BME is not None:
        parts.append(visual_BME.to(begin.dtype))
    if prompt_ids:
        parts.append(
            decoder.embed(torch.tensor([list(prompt_ids)], device=device)).expand(rows, -1, -1)
        )
    return torch.cat(parts, dim=1)


def caption_loss(
    decoder: TextDecoder,
    prefix_BPE: Tensor,
    captions_BRL: Tensor,
    *,
    pad_id: int,
) -> Tensor:
    """Mean cross-entropy of the tokens of R captions a clip, which share one prefix.

    The R captions of a clip are laid end to end behind one copy of its prefix, under a mask that
    hides them from each other and with positions that all start after the prefix: the numbers
    are those of R separate sequences (a test compares them), for the cost of one prefix.

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
    wanted = captions_BRL != pad_id
    logits = decoder.lm_head(predicting[wanted])
    return F.cross_entropy(logits.float(), captions_BRL[wanted])


def shared_prefix_mask(prefix: int, captions: int, length: int, device: torch.device) -> Tensor:
    """(S, S) boolean, True where attention is allowed: causal, and blind to other captions."""
    total = prefix + captions * length
    owner = torch.full((total,), -1, device=device)
    owner[prefix:] = torch.arange(captions, device=device).repeat_interleave(length)
    causal = torch.ones(total, total, dtype=torch.bool, device=device).tril()
    return causal & ((owner[None, :] == -1) | (owner[None, :] == owner[:, None]))


def word_loss(logits_BV: Tensor, captions_BRL: Tensor, rarity_V: Tensor) -> Tensor:
    """Cross-entropy of the words of a clip's captions, whatever their order.

    The target is the set of tokens in the clip's captions, weighted by rarity: "red" and "boat"
    count, "a" does not.
    """
    target = torch.zeros_like(logits_BV, dtype=torch.float32)
    target.scatter_(1, captions_BRL.flatten(1), 1.0)
    target = target * rarity_V
    target = target / target.sum(dim=1, keepdim=True)
    return -(target * logits_BV.float().log_softmax(dim=-1)).sum(dim=1).mean()


class CaptioningModel(nn.Module):
    """Encoder and decoder joined for training; its forward is the loss, so that one wrapper
    (accelerate's, DDP's) sees both.

    A released CLIP knows what a boat looks like before fine-tuning; an encoder that starts from
    nothing must learn it from captions alone, which takes the caption loss very long. With
    `word_weight` above 0 it is also asked, through a head that is dropped after training, which
    words its clip's captions hold. Full-size training, which starts from CLIP, sets it to 0.

    Args:
        rarity: (V,) weight of each token in the word loss, 0 for special tokens.
    """

    rarity: Tensor

    def __init__(
        self,
        model: MPlug2Plus,
        tokenizer: Tokenizer,
        *,
        word_weight: float,
        rarity: Sequence[float],
    ) -> None:
        super().__init__()
        self.encoder = model.make_encoder()
        self.decoder = model.make_decoder()
        self.word_weight = word_weight
        self.word_head = nn.Linear(model.decoder.width, model.decoder.vocabulary)
        self.register_buffer("rarity", torch.tensor(rarity, dtype=torch.float32))
        self.prompt_ids = tokenizer.encode(model.prompt) if model.prompt else []
        self.begin_id, self.pad_id = tokenizer.begin_id, tokenizer.pad_id

    def forward(self, frames_BTCHW: Tensor, captions_BRL: Tensor) -> tuple[Tensor, Tensor]:
        """The loss to minimise, and the caption loss in it."""
        visual = self.encoder(frames_BTCHW)
        prefix = caption_prefix(self.decoder, visual, self.prompt_ids, self.begin_id)
        captions = caption_loss(self.decoder, prefix, captions_BRL, pad_id=self.pad_id)
        if not self.word_weight:
            return captions, captions.detach()
        words = word_loss(self.word_head(visual.amax(dim=1)), captions_BRL, self.rarity)
        return captions + self.word_weight * words, captions.detach()
