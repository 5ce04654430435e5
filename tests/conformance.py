"""When two engines agree on a text: the same tokens, up to a step that rounding may decide.

Engines multiply in another order, so their logits differ in the last bits. Where the two best of a
greedy step are closer than that, either is right, and what follows is another text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atom_repro.models.generation import GenerationSettings, generate
from atom_repro.models.visual_tokens import VisualTokens

TIE = 1e-3  # of logits
# Where activations are rounded to int8 at run time: one whose last bits fall to the other side of a
# half moves by 1/255 of its range, which is no rounding of logits.
INT8_TIE = 0.05


@dataclass(frozen=True)
class Reference:
    """A greedy text.

    Attributes:
        tokens: without end-of-sequence.
        margins: between the two best logits of each step, that of end-of-sequence included.
    """

    tokens: tuple[int, ...]
    margins: tuple[float, ...]

    def agrees(self, tokens: Sequence[int], tie: float = TIE) -> bool:
        """Whether a text is this one up to the first tie."""
        tied = next((i for i, margin in enumerate(self.margins) if margin < tie), None)
        if tied is None:
            return tuple(tokens) == self.tokens
        return tuple(tokens[:tied]) == self.tokens[:tied]


class _Watched:
    """A decoding network that keeps the margins of its steps."""

    def __init__(self, network: Any) -> None:
        self._network, self.margins = network, list[float]()

    def step(self, ids_BK: Tensor, cache: Any) -> Tensor:
        return self.watch(self._network.step(ids_BK, cache))

    def watch(self, logits: Tensor) -> Tensor:
        best, second = logits.flatten().topk(2).values.tolist()
        self.margins.append(best - second)
        return logits


@torch.inference_mode()
def reference(decoder: Any, visual: VisualTokens, prompt: str, *, max_new_tokens: int) -> Reference:
    """What a decoder module writes for one clip.

    Args:
        decoder: `DecoderModule` of either Python engine.
    """
    logits, cache = decoder.prefill(visual, prompt)
    watched = _Watched(decoder.network)
    (text,) = generate(
        watched,
        (watched.watch(logits), cache),
        end_id=decoder.tokenizer.end_id,
        settings=GenerationSettings(beams=1, max_new_tokens=max_new_tokens),
    )
    return Reference(text.token_ids, tuple(watched.margins))
