"""OpenVINO as a peer: int8 weights, activations quantised dynamically."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atom_repro.peers.peer import Call, Shape, Work, calls, require_package


@dataclass(frozen=True)
class OpenVino:
    """One compiled model for each shape."""

    precision: str = "int8"

    def open(self, work: Work) -> Mapping[str, Call]:
        require_package("openvino")
        require_package("nncf")
        compiled = {
            shape.name: self._compile(work, shape, arguments)
            for shape, arguments in work.shapes.items()
        }

        def run(shape: Shape, arguments: tuple[Tensor, ...]) -> list[Tensor]:
            results = compiled[shape.name]([a.numpy() for a in arguments], share_inputs=True)
            return [torch.from_numpy(results[i]) for i in range(len(results))]

        return calls(work, run)

    def _compile(self, work: Work, shape: Shape, arguments: tuple[Tensor, ...]) -> Any:
        import nncf
        import openvino as ov

        model = ov.convert_model(work.methods[shape.method].module, example_input=arguments)
        sizes = zip(model.inputs, arguments, strict=True)
        model.reshape({one: list(argument.shape) for one, argument in sizes})
        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
        return ov.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": work.threads,
                "INFERENCE_PRECISION_HINT": "f32",
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": 32,
                "KV_CACHE_PRECISION": "f32",
            },
        )


def build() -> OpenVino:
    """Build the peer of `conf/peer/openvino_int8.yaml`."""
    return OpenVino()
