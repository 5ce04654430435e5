"""Module residency: how long modules stay in memory, for Atom's reuse and its baselines.

A pipeline calls a role (encoder, caption_decoder, script_decoder, embedder); the residency decides
which module serves it and when that module is loaded and released:

- `resident`: each module is loaded once a session; one decoder serves both decoder roles (Atom).
- `reload_stage`: modules are loaded before each stage of each prompt and released after it (the
  paper's "w/o reuse").
- `reload_input`: modules are loaded for each clip and released after it.
- `co_resident`: like `resident`, but scripts use a second decoder (the de facto pair).
"""

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.device.compute import ComputeDevice
from atom_repro.engines.engine import Engine, Module
from atom_repro.models.text_embedder import weight_file_bytes
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.quant.recipe import Quantiser
from atom_repro.records.record import out_of_memory
from atom_repro.runtime.timeline import Timeline

Role = Literal["encoder", "caption_decoder", "script_decoder", "embedder"]
Result = TypeVar("Result")
RESIDENCIES = ("resident", "reload_stage", "reload_input", "co_resident")


@dataclass(frozen=True)
class ModuleLoader:
    """Loads a module: `read` returns it ready to be called, `bytes` is its size on disk."""

    read: Callable[[], Module]
    bytes: int


def module_loaders(
    engine: Engine,
    checkpoint: Checkpoint,
    quantiser: Quantiser,
    model: VideoLanguageModel,
    device: ComputeDevice,
    *,
    embedder: str,
) -> dict[str, ModuleLoader]:
    """Loaders of encoder, decoder and embedder, onto a device.

    A load ends when the module can be called. There is no warm-up forward: at full size one costs
    more than the load, which would be charged to every reload though no real application runs it.
    An engine that defers work to the first call does it in the load (see `Engine`).

    Raises:
        AtomError: a module of that precision is missing.
    """
    sizes = checkpoint.bytes(quantiser)
    encoder, decoder = checkpoint.encoder(quantiser), checkpoint.decoder(quantiser)
    return {
        "encoder": ModuleLoader(
            partial(engine.load_encoder, encoder, model, quantiser, device.torch), sizes["encoder"]
        ),
        "decoder": ModuleLoader(
            partial(engine.load_decoder, decoder, model, quantiser, device.torch), sizes["decoder"]
        ),
        "embedder": ModuleLoader(
            partial(engine.load_embedder, embedder, device.torch), weight_file_bytes(embedder)
        ),
    }


class ModuleStore:
    """Modules of one session under one residency. Thread-safe."""

    def __init__(
        self,
        residency: str,
        loaders: Mapping[str, ModuleLoader],
        timeline: Timeline,
        device: ComputeDevice,
    ) -> None:
        self.residency, self.loaders, self.timeline = residency, loaders, timeline
        self.device = device
        self._loaded: dict[str, Any] = {}
        self._locks = {name: threading.Lock() for name in (*loaders, "script_decoder")}

    def call(self, role: Role, item: str, work: Callable[[Any], Result]) -> Result:
        """Return `work(module)` for the module that serves `role`, which is loaded if necessary.

        `work` must not keep the module: under `reload_input` it is released on return.

        Raises:
            MemoryError: no memory for the module or for its work; a one-line message.
        """
        name = self._name(role)
        try:
            with self._locks[name]:
                if name not in self._loaded:
                    self._loaded[name] = self._read(name, item)
            try:
                return work(self._loaded[name])
            finally:
                if self.residency == "reload_input":
                    self._release(name, item)
        except Exception as error:
            if not out_of_memory(error):
                raise
            message = " ".join(str(error).split())[:200]
            raise MemoryError(
                f"no memory left for the {name} at {item!r} ({message}); free some, choose smaller "
                "modules (quant=int8) or a residency that keeps fewer of them"
            ) from error

    def end_stage(self) -> None:
        """End a stage of a prompt: release the modules under `reload_stage`."""
        if self.residency == "reload_stage":
            self.close()

    def close(self) -> None:
        """End the session: release all modules."""
        for name in list(self._loaded):
            self._release(name, "")

    def _name(self, role: Role) -> str:
        if role == "script_decoder" and self.residency == "co_resident":
            return "script_decoder"
        return "decoder" if role in ("caption_decoder", "script_decoder") else role

    def _read(self, name: str, item: str) -> Any:
        loader = self.loaders["decoder" if name == "script_decoder" else name]
        with self.timeline.span("load", name, item, loader.bytes), self.device.stream():
            module = loader.read()
            self.device.synchronize()
            return module

    def _release(self, name: str, item: str) -> None:
        with self.timeline.span("release", name, item):
            with self._locks[name]:
                module = self._loaded.pop(name)
            if sys.exception() is not None:
                return  # an error propagates, and its traceback may hold the module
            try:
                module.release()
            except RuntimeError as error:
                raise RuntimeError(f"{name}: {error}") from error
            self.device.empty_cache()
