"""The text embedder for runtimes that run exported files: ids of one text to its unit vector."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.models.exported import Method
from atom_repro.models.text_embedder import TextEmbedder


class EmbedderForward(nn.Module):
    """Token ids (1, L), special tokens included, to the mean of their states as a unit vector
    (1, E)."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        # Attention written out: a fused one would stay outside the backend.
        network.set_attn_implementation("eager")
        self.network = network

    def forward(self, ids: Tensor) -> tuple[Tensor, ...]:
        hidden = self.network(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return (F.normalize(hidden.mean(dim=1), dim=-1),)


def embedder_method(embedder: TextEmbedder) -> Method:
    """`forward` of a text embedder, for texts of up to its longest.

    Raises:
        AtomError: it pools otherwise than by the mean.
    """
    if not embedder.is_normalised_mean:
        raise AtomError(
            "only text embedders that pool by the mean and normalise it are exported; use "
            "all-MiniLM-L6-v2 or one like it"
        )
    ids = torch.randint(0, 1000, (1, 9))
    return Method("forward", EmbedderForward(embedder.module), (ids,), ({1: embedder.longest},))
