"""The ExecuTorch engine: exported modules on XNNPACK, the runtime that phones have.

`prepare` exports each module once, in a process of its own; a load maps the file and packs its
weights. Search, cache and masks are ours, as in the eager engine, so all engines search alike. With
`processes` every module lives in a worker process, without which modules cannot run at once.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.module_files import (
    DECODER,
    ENCODER,
    TRAINED,
    read_config,
    read_module,
)
from atom_repro.datatypes import AtomError
from atom_repro.device.limits import Kernels
from atom_repro.engines.exporter import PROGRAM, Check, Export, in_a_process, write_export
from atom_repro.engines.modules import DecoderModule, EmbedderModule, EncoderModule
from atom_repro.engines.workers import RemoteModule, Workers
from atom_repro.engines.xnnpack import Program, start_runtime, use_threads
from atom_repro.engines.xnnpack_products import SquareProducts
from atom_repro.models.exported import FORMS, Forms, MethodCall, Table, encoder_method
from atom_repro.models.text_embedder import load_text_embedder, weight_file_bytes
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.quant import dynamic_activation
from atom_repro.quant.recipe import Quantiser

_CPU = torch.device("cpu")
_RECIPES = ("fp32", "8da8w", "8da4w")
_MODULES = 2  # encoder and decoder, each in a worker process
_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
_KIND = {"encoder": ENCODER, "decoder": DECODER}


@dataclass(frozen=True)
class ExecutorchEngine:
    """Engine that runs exported files on the CPU. Texts are embedded in PyTorch.

    Attributes:
        processes: whether each module has a worker process.
        huge_pages: whether those ask the system for huge pages, for which a step that reads all
            weights needs fewer address translations. glibc does, from 2.35 on.
        forms: of the graphs that are exported and run.
    """

    processes: bool
    huge_pages: bool
    forms: Forms = FORMS
    name: str = "executorch"
    any_threads: bool = False

    def prepare(
        self, checkpoint: Checkpoint, quantiser: Quantiser, model: VideoLanguageModel, embedder: str
    ) -> None:
        """Export the modules whose files are missing.

        Raises:
            AtomError: ExecuTorch is missing, or cannot run the model or the recipe.
            MemoryError: too little memory.
        """
        _require(quantiser, model)
        folders = {
            "encoder": checkpoint.encoder(quantiser),
            "decoder": checkpoint.decoder(quantiser),
        }
        for module, folder in folders.items():
            if not _export_of(folder, module, model, quantiser, self.forms).exists:
                in_a_process(_export, folder, module, model, quantiser, self.forms)
        if self.processes:
            _workers(self.huge_pages).start(_MODULES)
        else:
            start_runtime()

    def module_bytes(
        self, checkpoint: Checkpoint, quantiser: Quantiser, model: VideoLanguageModel, embedder: str
    ) -> dict[str, int]:
        files = exports(checkpoint, quantiser, model, self.forms)
        sizes = {name: export.bytes for name, export in files.items()}
        return {**sizes, "embedder": weight_file_bytes(embedder)}

    def load_encoder(
        self,
        folder: Path,
        model: VideoLanguageModel,
        quantiser: Quantiser = TRAINED,
        device: torch.device = _CPU,
    ) -> EncoderModule | RemoteModule:
        """Load the exported encoder of `model`.

        Raises:
            AtomError: it was not exported, or the device is no CPU.
            MemoryError: too little memory.
        """
        if self.processes:
            read = replace(self, processes=False).load_encoder
            workers = _workers(self.huge_pages)
            return RemoteModule.load(workers, read, folder, model, quantiser, device)
        export = _loadable(folder, "encoder", model, quantiser, device, self.forms)
        host = export.description()
        forward = Program(export.path / PROGRAM, ["forward"]).method("forward")
        network = _Encoder(forward, tuple(host["frame_tokens"]), host["features"])
        return EncoderModule(network, host["weights"], device)

    def load_decoder(
        self,
        folder: Path,
        model: VideoLanguageModel,
        quantiser: Quantiser = TRAINED,
        device: torch.device = _CPU,
    ) -> DecoderModule | RemoteModule:
        """Load the exported decoder of `model` and its tokenizer; raises as `load_encoder`."""
        if self.processes:
            read = replace(self, processes=False).load_decoder
            workers = _workers(self.huge_pages)
            return RemoteModule.load(workers, read, folder, model, quantiser, device)
        export = _loadable(folder, "decoder", model, quantiser, device, self.forms)
        assert model.decoder_export is not None
        program = Program(export.path / PROGRAM, ["prefill", "step"])
        methods = {name: program.method(name) for name in ("prefill", "step")}
        network = model.decoder_export.host(model.decoder, export.tables(), methods, self.forms)
        tokenizer = Tokenizer.load(folder, model.specials)
        return DecoderModule(network, model, tokenizer, export.description()["weights"])

    def load_embedder(self, source: str, device: torch.device = _CPU) -> EmbedderModule:
        """Load the text embedder into PyTorch: the embedded copy, a hub id or a folder."""
        return EmbedderModule(load_text_embedder(source, device=str(device)))

    def matmul_kernels(self) -> Kernels:
        eight_bits = dynamic_activation.build(weight_bits=8, group=0)
        return {
            "fp32": {"torch.mm": torch.mm, "XNNPACK fp32": SquareProducts(TRAINED)},
            "int8": {
                "torch._int_mm": torch._int_mm,
                "XNNPACK 8da8w": SquareProducts(eight_bits),
            },
        }


def exports(
    checkpoint: Checkpoint,
    quantiser: Quantiser,
    model: VideoLanguageModel,
    forms: Forms = FORMS,
) -> dict[str, Export]:
    """The exported encoder and decoder of a checkpoint.

    Raises:
        AtomError: one is missing, or ExecuTorch cannot run the model or the recipe.
    """
    _require(quantiser, model)
    return {
        "encoder": _existing(checkpoint.encoder(quantiser), "encoder", model, quantiser, forms),
        "decoder": _existing(checkpoint.decoder(quantiser), "decoder", model, quantiser, forms),
    }


def build(
    *, processes: bool, huge_pages: bool, fused: bool = True, hoisted: bool = True
) -> ExecutorchEngine:
    """Build the engine of `conf/engine/executorch.yaml`.

    Args:
        processes, huge_pages: see `ExecutorchEngine`.
        fused, hoisted: see `Forms`.

    Raises:
        AtomError: ExecuTorch is not installed.
    """
    if importlib.util.find_spec("executorch") is None:
        raise AtomError(
            "engine=executorch needs the package executorch, which has no wheel for every system; "
            "`pip install executorch==1.5.1`, or choose engine=eager"
        )
    return ExecutorchEngine(processes, huge_pages, Forms(fused, hoisted))


@cache
def _workers(huge_pages: bool) -> Workers:
    """The worker processes of this one, shared by all sessions."""
    return Workers(start_runtime, use_threads, _HUGE_PAGES if huge_pages else {})


@dataclass(frozen=True)
class _Encoder:
    """An exported encoder; it encodes one clip at a time."""

    forward: MethodCall
    frame_tokens: tuple[int, ...]
    features: Sequence[str]

    def __call__(self, frames_BTCHW: Tensor) -> VisualTokens:
        clips = [self.forward(frames_TCHW[None]) for frames_TCHW in frames_BTCHW]
        tokens, *features = (torch.cat(parts) for parts in zip(*clips, strict=True))
        return VisualTokens(
            tokens, self.frame_tokens, dict(zip(self.features, features, strict=True))
        )


def _require(quantiser: Quantiser, model: VideoLanguageModel) -> None:
    if quantiser.recipe not in _RECIPES:
        raise AtomError(
            f"engine=executorch multiplies quant=none, 8da8w and 8da4w, not {quantiser.recipe}; "
            "choose one of them (8da8w is the paper's int8 as phones run it), or engine=eager"
        )
    if model.decoder_export is None:
        raise AtomError(f"model={model.name} has no export of its decoder; choose engine=eager")


def _export_of(
    folder: Path, module: str, model: VideoLanguageModel, quantiser: Quantiser, forms: Forms
) -> Export:
    config = read_config(folder, _KIND[module], model)
    identity = {key: config[key] for key in ("network", "numbers", "form", "weights")}
    identity["recipe"] = quantiser.recipe
    if not forms.fused:
        identity["fused"] = False
    if not forms.hoisted and module == "decoder":
        identity["hoisted"] = False
    return Export(folder.parent / "executorch", module, identity)


def _existing(
    folder: Path, module: str, model: VideoLanguageModel, quantiser: Quantiser, forms: Forms
) -> Export:
    export = _export_of(folder, module, model, quantiser, forms)
    if not export.exists:
        raise AtomError(
            f"{folder} is not exported for engine=executorch; run the command again, which exports "
            "what is missing"
        )
    return export


def _loadable(
    folder: Path,
    module: str,
    model: VideoLanguageModel,
    quantiser: Quantiser,
    device: torch.device,
    forms: Forms,
) -> Export:
    if device.type != "cpu":
        raise AtomError(f"engine=executorch runs on device=cpu, not on {device}; or engine=eager")
    return _existing(folder, module, model, quantiser, forms)


def _export(
    folder: Path, module: str, model: VideoLanguageModel, quantiser: Quantiser, forms: Forms
) -> None:
    """Export a module of a checkpoint."""
    export = _export_of(folder, module, model, quantiser, forms)
    network, config = read_module(folder, model, _KIND[module], quantiser)
    network.eval()
    with torch.inference_mode(False), torch.no_grad():
        size, frames = model.encoder.image_size, model.encoder.frames
        video = torch.randint(0, 256, (1, frames, 3, size, size), dtype=torch.uint8)
        if module == "encoder":
            visual = network(video)
            host = {
                "frame_tokens": visual.frame_tokens,
                "features": list(visual.features),
            }
            methods = [encoder_method(network, video)]
            tables: dict[str, Tensor] = {}
            check: Check | None = None
        else:
            assert model.decoder_export is not None
            host, methods = {}, model.decoder_export.methods(network, forms)
            tables = {name: network.get_parameter(name) for name in model.decoder_export.tables}
            check = _decoder_check(model, network, forms)
        host["weights"] = config["weights"]
        write_export(
            export,
            methods,
            tables=tables,
            arithmetic=quantiser.arithmetic,
            host=host,
            check=check,
            fused=forms.fused,
        )


def _decoder_check(model: VideoLanguageModel, network: Any, forms: Forms) -> Check:
    """A comparison of the exported decoder, host included, with the network: a prompt and two steps
    of two beams that are reordered."""

    def check(
        tables: Mapping[str, Table], methods: Mapping[str, MethodCall]
    ) -> list[tuple[Tensor, Tensor]]:
        assert model.decoder_export is not None
        hosted = model.decoder_export.host(model.decoder, tables, methods, forms)
        tokens = torch.randn(1, model.encoder.visual_tokens, model.encoder.output_width)
        visual = None if model.writes_text else VisualTokens(tokens)
        ids, pairs = list(range(7)), []
        (ours, cache), (theirs, reference) = hosted.start(visual, ids), network.start(visual, ids)
        pairs.append((ours, theirs))
        for each in (cache, reference):
            each.open(2, 3)
        for ids_BK in ([[1, 2]], [[3, 1]]):
            step = torch.tensor(ids_BK)
            pairs.append((hosted.step(step, cache), network.step(step, reference)))
            for each in (cache, reference):
                each.reorder(torch.tensor([[1, 1]]))
        return pairs

    return check
