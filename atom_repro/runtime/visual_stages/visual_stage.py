"""Protocol of a stage on visual tokens, between encoder and decoder: a router, a token budget.

Chosen by `conf/visual_stages`, whose builders return a sequence of them; a new one is a file here
and one there. Under the parallel schedule
it works in a thread of its own.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from atom_repro.device.compute import ComputeDevice
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.runtime.captioning import ClipBatch
from atom_repro.runtime.residency import ModuleLoader, Role

Result = TypeVar("Result")


class StageRuntime(Protocol):
    """What a stage uses of the runtime that it works in: see `Runtime`."""

    def run(self, role: Role, stage: str, item: str, work: Callable[[Any], Result]) -> Result: ...
    def span(self, stage: str, module: str, item: str) -> AbstractContextManager[object]: ...


class VisualStage(Protocol):
    """Changes the visual tokens of clips before the decoder sees them."""

    @property
    def name(self) -> str:
        """Its name in records and tables, and that of its thread: of several stages each has its
        own."""
        ...

    def loaders(self, device: ComputeDevice) -> Mapping[str, ModuleLoader]:
        """Loaders of its modules, by the names that its `Role`s give; empty if it has none."""
        ...

    def __call__(self, runtime: StageRuntime, batch: ClipBatch, prompt: str) -> VisualTokens:
        """Change the visual tokens of the readable clips.

        What it returns has the `frame_tokens` and `features` that go with its tokens: a family may
        build its prompt from the first (SmolVLM2 does) and read the second in its decoder.

        Modules are called through `runtime.run`, other work is done inside `runtime.span`, so that
        both are on the timeline.

        Args:
            batch: with `visual`. All its clips get the same number of tokens.
            prompt: what the decoder will be asked about them.
        """
        ...

    def example(self, visual: VisualTokens) -> VisualTokens:
        """Visual tokens of the shapes that it makes of `visual`, for counting a decoder's work."""
        ...
