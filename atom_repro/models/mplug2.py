"""mPLUG2: the captioning model that mPLUG2+ derives from (Table 1's baseline).

Its video tokens go through two universal layers, and a BERT decoder attends to all of them by
cross-attention. What the released code builds and never runs for captions (text tower, most of
the text encoder, the fusion encoder) is left out; `released_parameter_counts` counts it.

Source: X-PLUG/mPLUG-2. `build` checks the hyperparameters of a `conf/model` file and returns the
configurations of both modules without allocating weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from atom_repro.datatypes import AtomError
from atom_repro.models.bert_decoder import BertDecoder, BertDecoderConfig
from atom_repro.models.bert_decoder_export import BERT_DECODER_EXPORT
from atom_repro.models.video_encoder import COMPONENTS, Form, VideoEncoder, VideoEncoderConfig
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.models.vlm import SpecialTokens, TokenizerProtocol

# The released code truncates training captions to this many ids, begin token included; a longer
# caption loses its end token.
RELEASED_MAX_LENGTH = 20


@dataclass(frozen=True)
class MPlug2:
    """Architecture of mPLUG2, without weights.

    `released_text` says whether captions have the format that the released weights were trained
    on: the prompt joined to the caption's first word, and generation from the begin token alone.
    """

    name: str
    encoder: VideoEncoderConfig
    decoder: BertDecoderConfig
    form: Form
    prompt: str
    released_text: bool
    writes_text = False
    decoder_export = BERT_DECODER_EXPORT
    specials = SpecialTokens(begin="[CLS]", end="[SEP]", pad="[PAD]")

    @property
    def unscored_ids(self) -> int:
        """Labels 0 to 2 are masked in the released code, and label 0 is the begin token."""
        return 2 if self.released_text else 0

    @property
    def components(self) -> Mapping[str, Sequence[str]]:
        """Parameter groups. The universal layers are `visual.connector`: the released code trains
        them with the text layers, not with the visual encoder."""
        return {**COMPONENTS, "decoder": ("decoder.*",)}

    def make_encoder(self) -> VideoEncoder:
        return VideoEncoder(self.encoder, self.form)

    def make_decoder(self) -> BertDecoder:
        return BertDecoder(self.decoder)

    def prompt_ids(
        self, tokenizer: TokenizerProtocol, text: str, *, visual: VisualTokens | None
    ) -> list[int]:
        """Begin token and text; the video enters by cross-attention, without ids of its own."""
        if self.released_text or not text:
            return [tokenizer.begin_id]
        return [tokenizer.begin_id, *tokenizer.encode(text)]

    def training_ids(self, tokenizer: TokenizerProtocol, caption: str) -> list[int]:
        """Target ids of a caption for `caption_loss`, end-of-sequence included."""
        if not self.released_text:
            return [*tokenizer.encode(caption), tokenizer.end_id]
        joined = tokenizer.encode(self.prompt + released_caption(caption))  # no space: as released
        return [*joined, tokenizer.end_id][: RELEASED_MAX_LENGTH - 1]

    def clean_text(self, text: str) -> str:
        if not self.released_text:
            return text
        return text.rpartition(self.prompt)[2].strip()

    def caption_loss(
        self,
        decoder: BertDecoder,
        visual: VisualTokens,
        captions_BRL: Tensor,
        tokenizer: TokenizerProtocol,
    ) -> Tensor:
        """Mean cross-entropy; with `released_text`, not of the first two words of the prompt.

        Raises:
            AtomError: `released_text` is on, and captions are not those of `training_ids`.
        """
        prefix_ids = self.prompt_ids(tokenizer, self.prompt, visual=visual)
        target_mask = captions_BRL != tokenizer.pad_id
        if self.released_text:
            unscored = self.unscored_ids
            masked_ids = torch.tensor(
                tokenizer.encode(self.prompt)[:unscored], device=captions_BRL.device
            )
            if (captions_BRL[:, :, :unscored] != masked_ids).any():
                raise AtomError(
                    f"model.released_text=true and a caption does not begin with {self.prompt!r}; "
                    "make its ids with training_ids, or set model.released_text=false"
                )
            target_mask[:, :, :unscored] = False
        prefix = torch.tensor(prefix_ids, device=captions_BRL.device)
        prefix = prefix.expand(*captions_BRL.shape[:2], -1)
        hidden = decoder(torch.cat((prefix, captions_BRL[:, :, :-1]), dim=2), visual)
        logits = decoder.cls(hidden[:, :, len(prefix_ids) - 1 :][target_mask])
        return F.cross_entropy(logits.float(), captions_BRL[target_mask])


def build(
    *,
    name: str,
    form: str,
    prompt: str,
    released_text: bool,
    encoder: Mapping[str, Any],
    decoder: Mapping[str, Any],
) -> MPlug2:
    """Build the model of a `conf/model` file.

    Args:
        form: `folded` (what runs) or `reference` (what Table 9 counts).
        prompt: text before the caption; empty for none.
        released_text: whether texts have the format that the released weights were trained on.
        encoder: fields of `VideoEncoderConfig`, `output_width` taken from the decoder.
        decoder: fields of `BertDecoderConfig`.
    """
    if form not in ("folded", "reference"):
        raise AtomError(f"model.form={form!r} is neither 'folded' nor 'reference'")
    if released_text and len(prompt.split()) < 2:
        raise AtomError(
            f"model.released_text=true and model.prompt={prompt!r}; the released weights were "
            "trained with the prompt 'a video of'"
        )
    decoder_config = BertDecoderConfig(**decoder)
    encoder_config = VideoEncoderConfig(**encoder, output_width=decoder_config.width)
    return MPlug2(name, encoder_config, decoder_config, form, prompt, released_text)  # type: ignore[arg-type]


def released_caption(caption: str) -> str:
    """Clean a caption as the released code does before tokenisation."""
    drop = str.maketrans(dict.fromkeys(",.'!?\"()*#:;~", "") | dict.fromkeys("-/", " "))
    return " ".join(caption.lower().translate(drop).split()[:80])


def released_parameter_counts(model: MPlug2) -> dict[str, int]:
    """Parameter counts of all parts that the released code builds (Tables 6 and 9).

    It instantiates CLIP's text tower, a text encoder and a fusion encoder of 24 layers each, and
    second feed-forwards and latents in the last two layers of every BERT; captioning runs none
    of these.
    """
    with torch.device("meta"):
        encoder, decoder = model.make_encoder(), model.make_decoder()
    width, inner, layers = model.decoder.width, model.decoder.mlp_width, 24
    attention = 4 * (width * width + width) + 2 * width
    feed_forward = 2 * width * inner + inner + 3 * width
    embeddings = sum(p.numel() for p in decoder.bert.embeddings.parameters())
    # Second feed-forwards and latents, for video, of the last two layers.
    video = 2 * feed_forward + model.encoder.latents * width
    sizes = {n: p.numel() for n, p in encoder.named_parameters()}
    return {
        "video encoder": sum(v for n, v in sizes.items() if not n.startswith(("uni.", "connector")))
        + model.encoder.width * _CLIP_TEXT_WIDTH,
        "CLIP text tower": _clip_text_tower(_CLIP_TEXT_WIDTH, layers=12, positions=77),
        "text encoder": embeddings + layers * (attention + feed_forward) + 2 * attention + video,
        "fusion encoder": embeddings + layers * (2 * attention + feed_forward),
        "text decoder": sum(p.numel() for p in decoder.parameters()) + video,
        "norm of video tokens": 2 * model.encoder.width,
    }


_CLIP_TEXT_WIDTH = 768


def _clip_text_tower(width: int, *, layers: int, positions: int) -> int:
    """Parameters of the text half of CLIP-ViT-L/14, its projection and logit scale included."""
    attention = 4 * (width * width + width)
    feed_forward = 8 * width * width + 5 * width
    layer = attention + feed_forward + 4 * width
    return 49408 * width + positions * width + layers * layer + 2 * width + width * width + 1
