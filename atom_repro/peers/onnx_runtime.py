"""ONNX Runtime as a peer: its dynamic int8, a scale for each channel of a weight."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atom_repro.peers.peer import Call, Shape, Work, calls, require_package


@dataclass(frozen=True)
class OnnxRuntime:
    """One session for each shape: graphs of fixed sizes, which the runtime optimises further."""

    precision: str = "int8"

    def open(self, work: Work) -> Mapping[str, Call]:
        require_package("onnxruntime")
        require_package("onnxscript")
        sessions = {
            shape.name: self._session(work, shape, arguments)
            for shape, arguments in work.shapes.items()
        }

        def run(shape: Shape, arguments: tuple[Tensor, ...]) -> list[Tensor]:
            session, names = sessions[shape.name]
            feed = {n: a.numpy() for n, a in zip(names, arguments, strict=True)}
            return [torch.from_numpy(x) for x in session.run(None, feed)]

        return calls(work, run)

    def _session(
        self, work: Work, shape: Shape, arguments: tuple[Tensor, ...]
    ) -> tuple[Any, list[str]]:
        import onnxruntime as ort
        from onnxruntime.quantization import QuantType, quantize_dynamic

        work.folder.mkdir(parents=True, exist_ok=True)
        plain = work.folder / f"{shape.name}.onnx"
        quantised = work.folder / f"{shape.name}-int8.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                work.methods[shape.method].module,
                arguments,
                str(plain),
                dynamo=True,
                external_data=True,
                verbose=False,
            )
            quantize_dynamic(
                str(plain),
                str(quantised),
                per_channel=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=True,
                op_types_to_quantize=["MatMul", "Gemm"],
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = work.threads
        options.log_severity_level = 3
        session = ort.InferenceSession(str(quantised), options, ["CPUExecutionProvider"])
        for file in work.folder.glob(f"{shape.name}*"):
            file.unlink()  # the session has its weights in memory
        return session, [node.name for node in session.get_inputs()]


def build() -> OnnxRuntime:
    """Build the peer of `conf/peer/onnxruntime_int8.yaml`."""
    return OnnxRuntime()
