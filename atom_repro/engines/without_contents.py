"""Running a network on tensors that have shapes and no contents, to count what it would do."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class WithoutContents(TorchDispatchMode):
    """Answers what depends on contents, for use inside torch's FakeTensorMode: no condition holds,
    every number is one, and a mask leaves everything in."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index.Tensor and _is_mask(args[1]):
            (mask,) = args[1]
            return args[0].flatten(0, mask.dim() - 1).clone()
        if func is torch.ops.aten._local_scalar_dense.default:
            return args[0].dtype != torch.bool
        return func(*args, **(kwargs or {}))


def _is_mask(indices: Any) -> bool:
    return len(indices) == 1 and indices[0] is not None and indices[0].dtype == torch.bool
