"""Encoder and decoder of any family joined for training, and what a tiny encoder needs to learn.

The training loss joins the two modules; nothing else needs both at once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atom_repro.models.vlm import Tokens, VideoLanguageModel


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
        model: VideoLanguageModel,
        tokenizer: Tokens,
        *,
        word_weight: float,
        rarity: Sequence[float],
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.encoder = model.make_encoder()
        self.decoder = model.make_decoder()
        self.word_weight = word_weight
        self.word_head = nn.Linear(model.encoder.output_width, model.decoder.vocabulary)
        self.register_buffer("rarity", torch.tensor(rarity, dtype=torch.float32))

    def forward(self, frames_BTCHW: Tensor, captions_BRL: Tensor) -> tuple[Tensor, Tensor]:
        """The loss to minimise, and the caption loss in it."""
        visual = self.encoder(frames_BTCHW)
        captions = self.model.caption_loss(self.decoder, visual, captions_BRL, self.tokenizer)
        if not self.word_weight:
            return captions, captions.detach()
        words = word_loss(self.word_head(visual.amax(dim=1)), captions_BRL, self.rarity)
        return captions + self.word_weight * words, captions.detach()
