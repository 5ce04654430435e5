"""Modules as folders of files, and the eager PyTorch engine that runs them.

A module's folder holds `config.json` (what it is, its numbers, precision and weights label),
`model.safetensors`, and for a decoder `tokenizer.json`. Writing is atomic: a folder appears whole
or not at all. Reading builds the module without memory and fills it from the file, so an int8
module never meets its fp32 weights, and a file of another size is refused by name.

This is the one engine of the package today; an exported one reads the same folders.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.engines.atomic import atomically
from atom_repro.models.generation import Generated, GenerationSettings, generate
from atom_repro.models.mplug2plus import caption_prefix
from atom_repro.models.text_decoder import TextDecoder, TextDecoderConfig
from atom_repro.models.text_embedder import TextEmbedder, load_text_embedder, source_files
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.video_encoder import Form, VideoEncoder, VideoEncoderConfig
from atom_repro.quant import int8, none
from atom_repro.quant.recipe import Quantiser, read_safetensors

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


@dataclass(frozen=True)
class EncoderModule:
    """Frames (B, T, 3, H, W) uint8 to visual tokens (B, M, E). Stateless; safe from any thread."""

    network: VideoEncoder
    weights: str
    bytes_read: int = 0

    @torch.inference_mode()
    def __call__(self, frames_BTCHW: Tensor) -> Tensor:
        return self.network(frames_BTCHW)


@dataclass(frozen=True)
class DecoderModule:
    """Visual tokens or none, and a prompt, to text. Stateless; safe from any thread."""

    network: TextDecoder
    tokenizer: Tokenizer
    weights: str
    bytes_read: int = 0

    @torch.inference_mode()
    def __call__(
        self, visual_BME: Tensor | None, prompt: str, settings: GenerationSettings
    ) -> list[Generated]:
        """One continuation a row of `visual_BME`, or one of the prompt alone."""
        ids = self.tokenizer.encode(prompt) if prompt else []
        prefix = caption_prefix(self.network, visual_BME, ids, self.tokenizer.begin_id)
        return generate(self.network, prefix, end_id=self.tokenizer.end_id, settings=settings)

    def text(self, generated: Generated) -> str:
        return self.tokenizer.decode(generated.token_ids)


@dataclass(frozen=True)
class EmbedderModule:
    """Texts to unit vectors (B, 384). Stateless; safe from any thread."""

    network: TextEmbedder
    bytes_read: int = 0

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return self.network(texts)


def save_encoder(folder: Path, module: VideoEncoder, quantiser: Quantiser, weights: str) -> None:
    """Write an encoder; fp32 files hold the reference form's names and shapes."""
    quantised = quantiser.name != "fp32"
    state = dict(module.state_dict()) if quantised else module.reference_state()
    config = {
        "kind": "video_encoder",
        "numbers": module.config.to_dict(),
        "form": module.form if quantised else "reference",
    }
    _save(folder, state, quantiser, config, weights, None)


def save_decoder(
    folder: Path, module: TextDecoder, tokenizer: Tokenizer, quantiser: Quantiser, weights: str
) -> None:
    """Write a decoder and its tokenizer. A tied head is written once."""
    state = dict(module.state_dict(keep_vars=True))
    tied = state["lm_head.weight"] is state["model.embed_tokens.weight"]
    if tied:
        del state["lm_head.weight"]
    config = {"kind": "text_decoder", "numbers": module.config.to_dict(), "tied": tied}
    _save(folder, state, quantiser, config, weights, tokenizer)


def load_encoder(folder: Path, expect: VideoEncoderConfig | None = None) -> EncoderModule:
    """Read an encoder, in the folded form unless the file was quantised in another.

    Raises:
        AtomError: missing or foreign files, or numbers other than `expect`.
    """
    config = read_config(folder, "video_encoder", expect.to_dict() if expect else None)
    form: Form = config["form"] if config["precision"] != "fp32" else "folded"
    with torch.device("meta"):
        network = VideoEncoder(VideoEncoderConfig(**config["numbers"]), form)
    _fill(network, folder, config)
    network.restore_constants()
    return EncoderModule(network.eval(), config["weights"], _size(folder))


def load_decoder(folder: Path, expect: TextDecoderConfig | None = None) -> DecoderModule:
    """Read a decoder and its tokenizer.

    Raises:
        AtomError: missing or foreign files, or numbers other than `expect`.
    """
    config = read_config(folder, "text_decoder", expect.to_dict() if expect else None)
    numbers = TextDecoderConfig(**config["numbers"])
    with torch.device("meta"):
        network = TextDecoder(numbers)
    _fill(network, folder, config)
    network.restore_constants()
    return DecoderModule(network.eval(), Tokenizer.load(folder), config["weights"], _size(folder))


def _quantiser(name: str) -> Quantiser:
    # Unpacking needs the format, not the recipe: the recipe is in the tensors' metadata.
    return none.build() if name == "fp32" else int8.build(linear="dynamic", embedding="weight_only")


def _save(
    folder: Path,
    state: Mapping[str, Tensor],
    quantiser: Quantiser,
    config: Mapping[str, Any],
    weights: str,
    tokenizer: Tokenizer | None,
) -> None:
    tensors, metadata = quantiser.pack(state)
    text = json.dumps(
        {"format": 1, **config, "precision": quantiser.name, "weights": weights}, indent=1
    )
    with atomically(folder) as building:
        building.mkdir()
        save_file(tensors, building / WEIGHTS, metadata=metadata)
        (building / CONFIG).write_text(text + "\n", encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save(building)


def read_config(folder: Path, kind: str, expect: Mapping[str, Any] | None = None) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise AtomError(
            f"no checkpoint in {folder}; run `python -m train.finetune` with the same model, "
            "dataset and scale, or set checkpoint.folder"
        )
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise AtomError(f"{path} is not JSON ({error}); write the checkpoint again") from error
    if config.get("kind") != kind:
        raise AtomError(f"{folder} holds a {config.get('kind')}, a {kind} is expected")
    side = "encoder" if kind == "video_encoder" else "decoder"
    for key, value in (expect or {}).items():
        if config["numbers"].get(key) != value:
            raise AtomError(
                f"{folder} was made with model.{side}.{key}={config['numbers'].get(key)}, the "
                f"configuration says {value}; choose the matching model or another checkpoint"
            )
    return config


def _fill(network: nn.Module, folder: Path, config: Mapping[str, Any]) -> None:
    path = folder / WEIGHTS
    try:
        tensors, metadata = read_safetensors(path)
    except Exception as error:  # the library raises its own type, not a subclass of ours to name
        raise AtomError(f"{path} cannot be read ({error}); write the checkpoint again") from error
    state = _quantiser(config["precision"]).unpack(tensors, metadata)
    if config.get("tied"):
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise AtomError(f"{path} does not fit its {CONFIG}: {first}") from error
    if config.get("tied") and isinstance(network, TextDecoder):
        network.lm_head.weight = network.model.embed_tokens.weight
    for parameter in network.parameters():
        parameter.requires_grad_(False)


def _size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.iterdir())


def load_embedder(source: str) -> EmbedderModule:
    """Read the text embedder: the embedded copy, a hub id or a folder."""
    return EmbedderModule(load_text_embedder(source), embedder_bytes(source))


def embedder_bytes(source: str) -> int:
    """Bytes of the weight files that loading the embedder reads."""
    return sum(f.stat().st_size for f in source_files(source))
