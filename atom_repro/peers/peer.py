"""Protocol of a peer: software that runs the parts of a model which an engine runs.

Chosen by `conf/peer`; a new one is a file here and one there. Every peer is given the same modules
with the same random weights, and lives in a process of its own, so none holds up another's threads.
"""

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.engines.xnnpack import no_python_messages
from atom_repro.models.exported import Method, encoder_method
from atom_repro.models.text_decoder import TextDecoderConfig
from atom_repro.models.text_decoder_export import prefill_inputs, step_inputs
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.records.record import out_of_memory

Call = Callable[[], Sequence[Tensor]]


@dataclass(frozen=True)
class Shape:
    """One thing to time: a method of a module, with the sizes of its arguments.

    Attributes:
        method: `forward` of the encoder; `prefill` or `step` of the decoder.
        clips, beams: of a step.
        prefix: positions of the prompt.
        allocated: positions of generated tokens.
    """

    name: str
    method: str
    prefix: int = 0
    allocated: int = 0
    clips: int = 1
    beams: int = 1

    def inputs(self, model: VideoLanguageModel) -> tuple[Tensor, ...]:
        """Random arguments, the same in every process.

        Raises:
            AtomError: the decoder is no Llama.
        """
        torch.manual_seed(1)
        if self.method == "forward":
            size = model.encoder.image_size
            shape = (1, model.encoder.frames, 3, size, size)
            return (torch.randint(0, 256, shape, dtype=torch.uint8),)
        config = model.decoder
        if not isinstance(config, TextDecoderConfig):
            raise AtomError(f"peers run Llama decoders; model={model.name} has another")
        if self.method == "prefill":
            return prefill_inputs(config, self.prefix)
        return step_inputs(
            config,
            clips=self.clips,
            beams=self.beams,
            prefix=self.prefix,
            allocated=self.allocated,
        )


@dataclass(frozen=True)
class Work:
    """What a peer is given.

    Attributes:
        network: encoder or decoder in fp32, whose layers the methods share.
        methods: by name.
        shapes: with their arguments.
        folder: for the files that it makes.
        threads: that it may use.
    """

    network: nn.Module
    methods: Mapping[str, Method]
    shapes: Mapping[Shape, tuple[Tensor, ...]]
    folder: Path
    threads: int


class Peer(Protocol):
    """A way to run modules.

    Attributes:
        precision: of its products: fp32, bf16, int8, int4.
    """

    @property
    def precision(self) -> str: ...

    def open(self, work: Work) -> Mapping[str, Call]:
        """Prepare a call for each shape, by its name.

        Raises:
            AtomError: the software is missing or cannot run the modules.
        """
        ...


class TimedPeer:
    """A peer at work, in its process."""

    def __init__(self, open_peer: Callable[[], Mapping[str, Call]]) -> None:
        start = time.perf_counter()
        self._calls = open_peer()
        self._seconds = time.perf_counter() - start
        for call in self._calls.values():
            call()

    def __call__(self, shape: str) -> float:
        """Seconds of one call."""
        call = self._calls[shape]
        with torch.inference_mode():
            start = time.perf_counter()
            call()
            return time.perf_counter() - start

    def seconds_to_open(self) -> float:
        """How long conversion, export or compilation took."""
        return self._seconds

    def outputs(self, shape: str) -> Tensor | None:
        """The first output: visual tokens or logits, in fp32; None of a peer that cannot be given
        what the others are given."""
        with torch.inference_mode():
            outputs = self._calls[shape]()
            return outputs[0].float().clone() if outputs else None

    def release(self) -> None:
        self._calls = {}


def open_timed(
    peer: Peer,
    model: VideoLanguageModel,
    part: str,
    shapes: Sequence[Shape],
    folder: Path,
    threads: int,
) -> TimedPeer:
    """Build the encoder or decoder of a model with random weights, and open it in a peer.

    Args:
        part: `encoder` or `decoder`.

    Raises:
        AtomError: it cannot be opened; what the peer says, in one line.
        MemoryError: too little memory.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with torch.no_grad():
        network, methods = _network(model, part)
    arguments = {shape: shape.inputs(model) for shape in shapes}
    work = Work(network, {m.name: m for m in methods}, arguments, folder, threads)

    def open_peer() -> Mapping[str, Call]:
        with torch.no_grad():
            return peer.open(work)

    try:
        with no_python_messages():
            return TimedPeer(open_peer)
    except AtomError:
        raise
    except Exception as error:
        # Other software fails in any way, and the others are still to be timed.
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:250]}"
        if out_of_memory(error):
            raise MemoryError(message) from error
        raise AtomError(message) from error


def _network(model: VideoLanguageModel, part: str) -> tuple[nn.Module, list[Method]]:
    if part == "encoder":
        network = model.make_encoder().eval().requires_grad_(False)
        return network, [encoder_method(network, *Shape("", "forward").inputs(model))]
    assert model.decoder_export is not None
    network = model.make_decoder().eval().requires_grad_(False)
    return network, model.decoder_export.methods(network)


def step_weights(model: VideoLanguageModel) -> int:
    """How many weights a decoding step multiplies: those of all linear layers."""
    with torch.device("meta"):
        layers = model.make_decoder().modules()
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))


def calls(
    work: Work, run: Callable[[Shape, tuple[Tensor, ...]], Sequence[Tensor]]
) -> dict[str, Call]:
    """A call for each shape: `run` with its arguments."""
    return {shape.name: partial(run, shape, arguments) for shape, arguments in work.shapes.items()}


def require_package(package: str, *, extra: str = "peers") -> None:
    """Check that a peer's package is installed.

    Raises:
        AtomError: it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise AtomError(f"the package {package} is not installed; `pip install -e '.[{extra}]'`")


def relative_error(output: Tensor | None, expected: Tensor | None) -> float | None:
    """The largest difference, relative to the largest expected value; None without one of both."""
    if output is None or expected is None:
        return None
    return float((output - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
