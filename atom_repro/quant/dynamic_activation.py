"""int8 activations quantised asymmetrically per token at run time, weights of 8 or 4 bits.

The schemes that phone runtimes multiply without conversion (ExecuTorch's XNNPACK backend calls them
8da8w and 8da4w): 8-bit weights have a scale for each row, 4-bit weights one for each group of a
row. `int8` (TorchAO's own route, the paper's) differs in one point: its activations are symmetric.
Embeddings have int8 weights per row. Everything else stays fp32 and is listed in the report.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.quant.int8 import import_torchao
from atom_repro.quant.recipe import (
    QuantReport,
    bytes_in_memory,
    is_tensor_subclass,
    skipped_layers,
)

_GROUPS = {"8da8w": 0, "8da4w": 32}  # of the schemes that runtimes know by name
_QUANTISED = "quantised"  # metadata of a file: what each quantised weight is


@dataclass(frozen=True)
class DynamicActivationQuantiser:
    """Quantiser of Linear layers to `weight_bits`, with `group` weights of a row to a scale (0: the
    row). A layer whose rows the group does not divide stays fp32."""

    weight_bits: int
    group: int
    arithmetic: str = "int8"
    is_identity: bool = False

    @property
    def recipe(self) -> str:
        scheme = f"8da{self.weight_bits}w"
        return scheme if self.group == _GROUPS[scheme] else f"{scheme}-group_{self.group}"

    @property
    def name(self) -> str:
        return f"int{self.weight_bits}"

    def bytes_of(self, layer: nn.Module, weight: Tensor) -> int:
        if weight.dim() != 2 or type(layer) not in (nn.Linear, nn.Embedding):
            return weight.nbytes
        rows, columns = weight.shape
        if type(layer) is nn.Embedding:
            return weight.numel() + 4 * rows
        group = self.group or columns
        if columns % group:
            return weight.nbytes
        return weight.numel() * self.weight_bits // 8 + 4 * rows * (columns // group)

    def quantise(self, module: nn.Module) -> QuantReport:
        quantization, per_axis, _ = import_torchao()
        from torchao.quantization.granularity import PerGroup

        bytes_before = bytes_in_memory(module)
        linear = quantization.Int8DynamicActivationIntxWeightConfig(
            weight_dtype=getattr(torch, f"int{self.weight_bits}"),
            weight_granularity=PerGroup(self.group) if self.group else per_axis(0),
        )
        embedding = quantization.IntxWeightOnlyConfig(
            weight_dtype=torch.int8, granularity=per_axis(0)
        )
        recipe_of = {
            nn.Linear: f"int8 dynamic activation, int{self.weight_bits} weight",
            nn.Embedding: "int8 weight a row",
        }
        # By exact type: the kernel of nn.MultiheadAttention reads its out_proj plainly.
        changed = {
            name: recipe_of[type(child)]
            for name, child in module.named_modules()
            if type(child) in recipe_of and self._fits(child)
        }
        if not changed:
            raise AtomError(
                f"quant={self.recipe} found nothing to change in {type(module).__name__}; choose "
                "another quantiser or quant=none"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for config, kind in ((linear, nn.Linear), (embedding, nn.Embedding)):
                quantization.quantize_(
                    module,
                    config,
                    lambda m, _, kind=kind: type(m) is kind and self._fits(m),
                )
        return QuantReport(
            changed, skipped_layers(module, changed), bytes_before, bytes_in_memory(module)
        )

    def _fits(self, layer: nn.Module) -> bool:
        return not (isinstance(layer, nn.Linear) and self.group and layer.in_features % self.group)

    def pack(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors: dict[str, Tensor] = {}
        quantised: dict[str, dict[str, Any]] = {}
        for name, tensor in state.items():
            if not is_tensor_subclass(tensor):
                tensors[name] = tensor.detach().contiguous()
                continue
            weight: Any = tensor
            bits = int(str(weight.target_dtype).removeprefix("torch.int"))
            quantised[name] = {
                "bits": bits,
                "block": list(weight.block_size),
                "activations": weight.activation_quantization is not None,
            }
            tensors[f"{name}.codes"] = pack_nibbles(weight.qdata) if bits == 4 else weight.qdata
            tensors[f"{name}.scales"] = weight.scale.contiguous()
        return tensors, {_QUANTISED: json.dumps(quantised)}

    def unpack(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> dict[str, Tensor]:
        if _QUANTISED not in metadata:
            raise AtomError(
                f"the checkpoint is marked {self.recipe} but has no quantised weights; write it "
                "again"
            )
        import_torchao()
        from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import (
            IntxUnpackedToInt8Tensor,
            IntxUnpackedToInt8TensorActivationQuantization,
        )

        per_token = IntxUnpackedToInt8TensorActivationQuantization.INT8_ASYM_PER_TOKEN
        quantised: dict[str, dict[str, Any]] = json.loads(metadata[_QUANTISED])
        state = {n: t for n, t in tensors.items() if not n.endswith((".codes", ".scales"))}
        for name, how in quantised.items():
            codes, scales = tensors[f"{name}.codes"], tensors[f"{name}.scales"]
            state[name] = IntxUnpackedToInt8Tensor(
                unpack_nibbles(codes) if how["bits"] == 4 else codes,
                scales,
                torch.zeros_like(scales, dtype=torch.int8),
                getattr(torch, f"int{how['bits']}"),
                tuple(how["block"]),
                torch.float32,
                per_token if how["activations"] else None,
            )
        return state


def pack_nibbles(codes: Tensor) -> Tensor:
    """Codes (N, K) int8 from -8 to 7 as bytes (N, K / 2), the even column in the lower half."""
    shifted = (codes + 8).to(torch.uint8)
    return shifted[:, ::2] | (shifted[:, 1::2] << 4)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """The inverse of `pack_nibbles`."""
    return (
        torch.stack((packed & 15, packed >> 4), dim=2).flatten(1).to(torch.int8) - 8
    ).contiguous()


def build(*, weight_bits: int, group: int) -> DynamicActivationQuantiser:
    """Build the quantiser of a `conf/quant` file.

    Raises:
        AtomError: bits or a group that no scheme has.
    """
    if weight_bits not in (4, 8):
        raise AtomError(f"quant.weight_bits={weight_bits} is neither 4 nor 8")
    if group < 0 or group % 2:
        raise AtomError(f"quant.group={group} is neither 0 (a scale for each row) nor even")
    return DynamicActivationQuantiser(weight_bits, group)
