"""Encoder and decoder joined for training: caption, bag-of-words and text-task losses.

Only the training loss needs both modules at once.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from atom_repro.models.text_decoder import TextDecoder
from atom_repro.models.video_encoder import VideoEncoder
from atom_repro.models.vlm import TokenizerProtocol, VideoLanguageModel
from atom_repro.training.text_loss import text_loss

# A micro-batch: `images` (F, 3, H, W) and `image_captions` (F, R, L) alone, or `frames`
# (B, T, 3, H, W) and `captions` (B, R, L); `text` and `text_target`
# (C, L) and `asked_frames`, `asked` and `asked_target` where the step has text tasks. Weights
# (floats) turn the mean over a micro-batch's tokens into one over the tokens of the whole step.
MicroBatch = Mapping[str, Tensor | float]


def word_loss(logits_BV: Tensor, captions_BRL: Tensor, rarity_V: Tensor) -> Tensor:
    """Bag-of-words loss: cross-entropy of the words of a clip's captions in any order.

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
    words its clip's captions hold. Llama can also write a script before fine-tuning; a decoder
    that starts from nothing learns it from text tasks, at `text_weight`. Full-size training,
    which starts from CLIP and Llama, has neither.

    With `reads_images`, a batch of `images` alone is also taken: it trains the encoder's stem to
    say which words a clip's captions hold from one of its frames, through a head of its own.

    Args:
        rarity: (V,) weight of each token in the word loss, 0 for special tokens.
    """

    rarity: Tensor

    def __init__(
        self,
        model: VideoLanguageModel,
        tokenizer: TokenizerProtocol,
        *,
        word_weight: float,
        text_weight: float,
        rarity: Sequence[float],
        reads_images: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.encoder = model.make_encoder()
        self.decoder = model.make_decoder()
        self.word_weight, self.text_weight = word_weight, text_weight
        if word_weight:
            self.word_head = nn.Linear(model.encoder.output_width, model.decoder.vocabulary)
        if reads_images:
            width = cast(VideoEncoder, self.encoder).config.width
            self.image_norm = nn.LayerNorm(width)
            self.image_head = nn.Linear(width, model.decoder.vocabulary)
        self.register_buffer("rarity", torch.tensor(rarity, dtype=torch.float32))

    def forward(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total loss, and its terms under their names in the loss curve."""
        if "images" in batch:
            loss = self._image_loss(_tensor(batch, "images"), _tensor(batch, "image_captions"))
            return loss, {"image_loss": loss.detach()}
        captions_BRL = _tensor(batch, "captions")
        visual = self.encoder(_tensor(batch, "frames"))
        captions = self.model.caption_loss(self.decoder, visual, captions_BRL, self.tokenizer)
        captions = captions * batch["caption_weight"]
        loss, losses = captions, {"caption_loss": captions.detach()}
        if self.word_weight:
            bag_loss = word_loss(
                self.word_head(visual.tokens.amax(dim=1)), captions_BRL, self.rarity
            )
            loss = loss + self.word_weight * bag_loss
        for name, task in (("text_loss", "text"), ("question_loss", "asked")):
            if task in batch:
                task_loss = self._task_loss(batch, task) * batch[f"{task}_weight"]
                loss = loss + self.text_weight * task_loss
                losses[name] = task_loss.detach()
        return loss, losses

    def _image_loss(self, images_FCHW: Tensor, captions_FRL: Tensor) -> Tensor:
        """Word loss of single frames: a word is where the patch that shows it most says so."""
        patches = self.image_norm(cast(VideoEncoder, self.encoder).patches(images_FCHW))
        logits = self.image_head(patches).logsumexp(dim=1)
        return word_loss(logits, captions_FRL, self.rarity)

    def _task_loss(self, batch: MicroBatch, task: str) -> Tensor:
        visual = self.encoder(_tensor(batch, "asked_frames")) if task == "asked" else None
        # Only a family that writes text has such batches, and it has a language decoder.
        decoder = cast(TextDecoder, self.decoder)
        return text_loss(decoder, visual, _tensor(batch, task), _tensor(batch, f"{task}_target"))


def _tensor(batch: MicroBatch, name: str) -> Tensor:
    value = batch[name]
    assert isinstance(value, Tensor)
    return value
