"""Loss of text tasks: cross-entropy of the target after a prompt, with or without a video.

Rows hold [begin] prompt target [end] and padding on the right. Under causal attention no token
sees the padding behind it, so no mask is needed, and the numbers are those of unpadded rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from atom_repro.models.text_decoder import TextDecoder
from atom_repro.models.visual_tokens import VisualTokens


def text_loss(
    decoder: TextDecoder, visual: VisualTokens | None, ids_BL: Tensor, target_BL: Tensor
) -> Tensor:
    """Mean cross-entropy of the target tokens.

    Args:
        visual: visual tokens, which go between the first id and the rest, as in captioning;
            None for a task on text alone.
        ids_BL: begin, prompt, target, end, padding.
        target_BL: True where a token is to be predicted; never in the first column.
    """
    embeds = decoder.embed(ids_BL[:, :-1])
    if visual is not None:
        tokens = visual.tokens.to(embeds.dtype)
        embeds = torch.cat((embeds[:, :1], tokens, embeds[:, 1:]), dim=1)
    hidden = decoder(embeds)
    # With visual tokens, the last of them predicts the token after `begin`.
    predicting = hidden[:, visual.count if visual else 0 :]
    is_target = target_BL[:, 1:]
    logits = decoder.lm_head(predicting[is_target])
    return F.cross_entropy(logits.float(), ids_BL[:, 1:][is_target])
