"""How many bytes a module takes as a file: what Table 6 calls storage."""

import io

import torch
from torch import nn


def saved_bytes(module: nn.Module) -> int:
    """Returns the size of the module's state as `torch.save` writes it, whatever its tensors
    are: packed int8 of either route keeps its scales in it."""
    stream = io.BytesIO()
    torch.save(module.state_dict(), stream)
    return stream.getbuffer().nbytes
