"""Module residency: how long modules stay in memory, for Atom's reuse and its baselines.

A pipeline calls a role, such as the caption decoder or the script decoder; the residency decides
when the module that serves it is loaded and released:

- `resident`: each module is loaded once a session; one decoder serves both decoder roles (Atom).
- `reload_stage`: modules are loaded before each stage of each prompt and released after it (the
  paper's "w/o reuse").
- `reload_input`: modules are loaded for each batch of clips, by default one, and released after it.
- `co_resident`: like `resident`, but scripts use a second decoder (the de facto pair).
"""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.device.compute import ComputeDevice
from atom_repro.engines.engine import Engine, Module
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.quant.recipe import Quantiser
from atom_repro.records.record import out_of_memory
from atom_repro.runtime.timeline import Timeline

Result = TypeVar("Result")
RESIDENCIES = ("resident", "reload_stage", "reload_input", "co_resident")


@dataclass(frozen=True)
class Role:
    """A use of a module. Another one is made by whoever has work for it: a stage, a task.

    Attributes:
        module: the name of the loader of the module that serves it.
        copy: under `co_resident`, the name of a second module of this loader that serves it
            instead; empty to share the first under every residency.
    """

    module: str
    copy: str = ""


ENCODER = Role("encoder")
CAPTION_DECODER = Role("decoder")
SCRIPT_DECODER = Role("decoder", copy="script_decoder")
EMBEDDER = Role("embedder")


@dataclass(frozen=True)
class ModuleLoader:
    """Loads a module: `read` returns it ready to be called, `bytes` is its size on disk, `folder`
    where its weights are."""

    read: Callable[[], Module]
    bytes: int
    folder: Path = Path()


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
    sizes = engine.module_bytes(checkpoint, quantiser, model, embedder)
    encoder, decoder = checkpoint.encoder(quantiser), checkpoint.decoder(quantiser)
    return {
        "encoder": ModuleLoader(
            partial(engine.load_encoder, encoder, model, quantiser, device.torch),
            sizes["encoder"],
            encoder.parent,
        ),
        "decoder": ModuleLoader(
            partial(engine.load_decoder, decoder, model, quantiser, device.torch),
            sizes["decoder"],
            decoder.parent,
        ),
        "embedder": ModuleLoader(
            partial(engine.load_embedder, embedder, device.torch), sizes["embedder"]
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
        self._users: Counter[str] = Counter()
        self._locks: dict[str, threading.Lock] = {}

    def call(self, role: Role, item: str, work: Callable[[Any], Result]) -> Result:
        """Return `work(module)` for the module that serves `role`, which is loaded if necessary.

        `work` must not keep the module: under `reload_input` it is released on return, or on that
        of the last thread that works with it.

        Raises:
            MemoryError: no memory for the module or for its work; a one-line message.
        """
        name = self.name(role)
        try:
            with self._lock(name):
                if name not in self._loaded:
                    self._loaded[name] = self._read(role, name, item)
                module = self._loaded[name]
                self._users[name] += 1
            try:
                return work(module)
            finally:
                del module
                with self._lock(name):
                    self._users[name] -= 1
                    is_last = not self._users[name]
                    if self.residency == "reload_input" and is_last:
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
            with self._lock(name):
                self._release(name, "")

    def name(self, role: Role) -> str:
        """Name of the module that serves a role under this residency."""
        return role.copy if role.copy and self.residency == "co_resident" else role.module

    def _lock(self, name: str) -> threading.Lock:
        return self._locks.setdefault(name, threading.Lock())

    def _read(self, role: Role, name: str, item: str) -> Any:
        loader = self.loaders[role.module]
        with self.timeline.span("load", name, item, loader.bytes), self.device.stream():
            module = loader.read()
            self.device.synchronize()
            return module

    def _release(self, name: str, item: str) -> None:
        """Release a module; its lock is held."""
        with self.timeline.span("release", name, item):
            module = self._loaded.pop(name)
            if sys.exception() is not None:
                return  # an error propagates, and its traceback may hold the module
            try:
                module.release()
            except RuntimeError as error:
                raise RuntimeError(f"{name}: {error}") from error
            self.device.empty_cache()
