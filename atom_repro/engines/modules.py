"""The modules that engines load: a network, or what stands for one, behind the protocols."""

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from atom_repro.datatypes import AtomError
from atom_repro.models.generation import (
    ContinuousBatch,
    Generated,
    GenerationSettings,
    generate,
    score_continuations,
)
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.models.vlm import DecodingNetwork, VideoLanguageModel

_CPU = torch.device("cpu")


class _Releasable:
    """A module whose weights are those of `network`."""

    network: Any

    def release(self) -> None:
        network_ref = weakref.ref(self.network)
        del self.network
        if network_ref() is not None:
            gc.collect()  # a cycle inside the network; the next load must find the memory free
        if network_ref() is not None:
            raise RuntimeError("the network is still referenced after its release")


@dataclass
class EncoderModule(_Releasable):
    """Encode frames (B, T, 3, H, W) uint8 to visual tokens. Stateless, thread-safe."""

    network: Callable[[Tensor], VisualTokens]
    weights: str
    device: torch.device = _CPU

    @torch.inference_mode()
    def __call__(self, frames_BTCHW: Tensor) -> VisualTokens:
        return self.network(frames_BTCHW.to(self.device))


@dataclass
class DecoderModule(_Releasable):
    """Generate text from a prompt, with or without visual tokens. Stateless, thread-safe."""

    network: DecodingNetwork
    model: VideoLanguageModel
    tokenizer: Tokenizer
    weights: str

    @torch.inference_mode()
    def generate(
        self, visual: VisualTokens | None, prompt: str, settings: GenerationSettings
    ) -> list[Generated]:
        start = self.prefill(visual, prompt)
        end_id = self.tokenizer.end_id
        found = generate(self.network, start, end_id=end_id, settings=settings)
        return [self.with_text(one) for one in found]

    def with_text(self, generated: Generated) -> Generated:
        """What was generated, with the text of its tokens."""
        text = self.model.clean_text(self.tokenizer.decode(generated.token_ids))
        return replace(generated, text=text)

    @torch.inference_mode()
    def score(
        self, visual: VisualTokens | None, prompt: str, continuations: Sequence[str]
    ) -> list[list[tuple[float, ...]]]:
        ids = [self.tokenizer.encode(text) for text in continuations]
        if not ids or not all(ids):
            raise AtomError("a continuation to score is empty, or there is none; leave it out")
        return score_continuations(self.network, self.prefill(visual, prompt), ids)

    def batch(self, prompt: str, settings: GenerationSettings) -> "DecoderBatch":
        return DecoderBatch(self, prompt, settings)

    def prefill(self, visual: VisualTokens | None, prompt: str) -> tuple[Tensor, Any]:
        if visual is None and not self.model.writes_text:
            raise AtomError(
                f"the decoder of model={self.model.name} cannot write without a video; choose a "
                "model whose decoder serves text tasks, such as mplug2plus"
            )
        ids = self.model.prompt_ids(self.tokenizer, prompt, visual=visual)
        return self.network.start(visual, ids)


class DecoderBatch:
    """Continuous batching on a decoder: see `engine.Batch`."""

    def __init__(self, decoder: DecoderModule, prompt: str, settings: GenerationSettings) -> None:
        self._decoder, self._prompt = decoder, prompt
        end_id = decoder.tokenizer.end_id
        self._batch = ContinuousBatch(decoder.network, end_id=end_id, settings=settings)

    @torch.inference_mode()
    def add(self, number: int, visual: VisualTokens) -> dict[int, Generated]:
        logits, cache = self._decoder.prefill(visual, self._prompt)
        if not hasattr(cache, "join"):
            raise AtomError(
                "runtime.decode_batch needs a decoder whose clips can join a running step: "
                "engine=executorch, or runtime.decode_batch=1"
            )
        done = self._batch.add(number, (logits, cache))
        return {} if done is None else {number: self._decoder.with_text(done)}

    @torch.inference_mode()
    def advance(self, most_steps: int) -> dict[int, Generated]:
        for _ in range(most_steps):
            if done := self._batch.step():
                return {number: self._decoder.with_text(one) for number, one in done.items()}
        return {}


@dataclass
class EmbedderModule(_Releasable):
    """Embed texts as unit vectors (B, 384) in main memory. Stateless, thread-safe."""

    network: Callable[[Sequence[str]], Tensor]

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return self.network(texts).cpu()
