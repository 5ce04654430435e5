"""Visual tokens: what an encoder hands to a decoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from atom_repro.datatypes import AtomError

# Marks the position of the next visual token in a prompt's ids.
VISUAL_PLACEHOLDER = -1


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """The visual tokens of B clips.

    Attributes:
        tokens: (B, M, E), in the decoder's width.
        frame_tokens: the number of tokens of each frame, in order. They are the last of the M;
            those before them, and all where it is empty, belong to the clip as a whole.
        features: what else a model family hands over, by name, each (B, …): features of further
            layers, positions.
    """

    tokens: Tensor
    frame_tokens: tuple[int, ...] = ()
    features: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if sum(self.frame_tokens) > self.count:
            raise ValueError(f"frames of {self.frame_tokens} tokens, of {self.count} in all")

    @property
    def clips(self) -> int:
        """B."""
        return self.tokens.shape[0]

    @property
    def count(self) -> int:
        """M."""
        return self.tokens.shape[1]


def insert_visual_tokens(
    embedded_PE: Tensor, ids: Sequence[int], visual: VisualTokens | None
) -> Tensor:
    """A prompt's embeddings (B, P, E) with placeholders replaced by the visual tokens.

    Args:
        embedded_PE: an embedding for each id; those of `VISUAL_PLACEHOLDER` are overwritten.

    Raises:
        AtomError: the prompt does not have one placeholder per visual token.
    """
    positions = torch.tensor(
        [i for i, token in enumerate(ids) if token == VISUAL_PLACEHOLDER], dtype=torch.long
    )
    if visual is None:
        if len(positions):
            raise AtomError("the prompt has placeholders for visual tokens, but no video was given")
        return embedded_PE[None]
    if len(positions) != visual.count:
        raise AtomError(
            f"the prompt has {len(positions)} placeholders for {visual.count} visual "
            "tokens; use the encoder of the model that the prompt was built for"
        )
    embeds = embedded_PE.expand(visual.clips, -1, -1)
    return embeds.index_copy(1, positions.to(embeds.device), visual.tokens.to(embeds.dtype))
