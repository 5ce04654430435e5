"""Reading and writing of module folders: configuration, weights and tokenizer of one module.

A module's folder holds `config.json` (kind, hyperparameters, precision and weights label),
`model.safetensors`, and for a decoder `tokenizer.json`. Writing is atomic: a folder appears whole
or not at all. Reading builds the module on the meta device and assigns the tensors of the file, so
an int8 module never allocates fp32 weights; a file that does not fit is refused by name.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from atom_repro.checkpoints.weight_files import (
    SafetensorsFile,
    SafetensorsWriter,
    finite,
    read_safetensors,
)
from atom_repro.datatypes import AtomError
from atom_repro.device.capacity import require_memory
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.quant import none
from atom_repro.quant.recipe import Quantiser
from atom_repro.records.atomic import atomic_write

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
# The `kind` of a module in its configuration.
ENCODER, DECODER = "video_encoder", "text_decoder"
# How weights are stored that training or conversion writes.
TRAINED = none.build()
_SILENT_S = 0.5  # seconds without a sign of progress


def save_encoder(
    folder: Path, model: VideoLanguageModel, network: Any, quantiser: Quantiser, weights: str
) -> None:
    """Write an encoder folder; fp32 files hold the names and shapes that the family shares."""
    config = _module_config(ENCODER, model.encoder.to_dict(), network)
    _save(folder, network, quantiser, config, weights, None)


def save_decoder(
    folder: Path,
    model: VideoLanguageModel,
    network: Any,
    tokenizer: Tokenizer | None,
    quantiser: Quantiser,
    weights: str,
) -> None:
    """Write a decoder folder with its tokenizer (None where only the size of the files matters).
    A tied weight is written once."""
    config = _module_config(DECODER, model.decoder.to_dict(), network)
    _save(folder, network, quantiser, config, weights, tokenizer)


def empty_network(model: VideoLanguageModel, kind: str) -> Any:
    """Build the encoder or the decoder of `model` on the meta device.

    Args:
        kind: `ENCODER` or `DECODER`.
    """
    with torch.device("meta"):
        return model.make_encoder() if kind == ENCODER else model.make_decoder()


def read_module(
    folder: Path, model: VideoLanguageModel, kind: str, quantiser: Quantiser
) -> tuple[nn.Module, dict[str, Any]]:
    """Read a module of `model` into main memory: its network, and its `config.json`.

    Args:
        quantiser: the one that its weights were stored by.

    Raises:
        AtomError: missing files, another kind of module, other hyperparameters or recipe.
    """
    config = read_config(folder, kind, model)
    if _recipe(config) != quantiser.recipe:
        raise AtomError(
            f"{folder} was stored as {_recipe(config)}, the configuration asks for "
            f"{quantiser.recipe}; choose the matching quant or another checkpoint"
        )
    network = empty_network(model, kind)
    _load_weights(network, folder, config, quantiser)
    return network, config


def weight_shapes(network: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights that a module's fp32 file holds, by name; a tied weight once."""
    state = network.checkpoint_state_dict()
    return {name: tuple(t.shape) for name, t in state.items() if name not in network.tied}


def folder_bytes(folder: Path) -> int:
    """Size of all files of one module, in bytes."""
    return sum(f.stat().st_size for f in folder.iterdir())


def weights_bytes(folder: Path) -> int:
    """Size of a module's weights and configuration in bytes, without the tokenizer."""
    return sum((folder / name).stat().st_size for name in (WEIGHTS_FILE, CONFIG_FILE))


def _recipe(config: Mapping[str, Any]) -> str:
    """Recipe of a module; its precision where the folder is older than recipes."""
    return str(config.get("recipe", config["precision"]))


def _module_config(kind: str, numbers: Mapping[str, Any], network: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "network": type(network).__name__,
        "numbers": dict(numbers),
        "form": getattr(network, "form", ""),
    }


def _save(
    folder: Path,
    network: Any,
    quantiser: Quantiser,
    config: Mapping[str, Any],
    weights: str,
    tokenizer: Tokenizer | None,
) -> None:
    state = (
        network.checkpoint_state_dict()
        if quantiser.is_identity
        else dict(network.state_dict(keep_vars=True))
    )
    # A weight that quantisation has untied is two weights from here on.
    tied = {k: v for k, v in network.tied.items() if state[k] is state[v]}
    tensors, metadata = quantiser.pack({k: t for k, t in state.items() if k not in tied})
    with atomic_write(folder) as building:
        building.mkdir()
        save_file(tensors, building / WEIGHTS_FILE, metadata=metadata)
        _write_config(building, config, quantiser, weights, tied)
        if tokenizer is not None:
            tokenizer.save(building)


def _write_config(
    folder: Path,
    config: Mapping[str, Any],
    quantiser: Quantiser,
    weights: str,
    tied: Mapping[str, str],
) -> None:
    precision = {"precision": quantiser.name, "recipe": quantiser.recipe}
    content = {"format": 2, **config, **precision, "weights": weights}
    text = json.dumps({**content, "tied": dict(tied)}, indent=1)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def stream_weights(
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, Tensor]],
) -> str:
    """Write a module's fp32 weights a tensor at a time; return the sha256 of names and bytes.

    `write_module_config` completes the folder.
    """
    folder.mkdir(parents=True)
    path = folder / WEIGHTS_FILE
    with path.open("xb") as stream, _progress(path, "write") as bar:
        bar.total = sum(4 * math.prod(shape) for shape in shapes.values())
        writer = SafetensorsWriter(stream, shapes)
        for name, tensor in tensors:
            writer.add(name, tensor)
            bar.update(tensor.nbytes)
        writer.finish()
    return writer.digest.hexdigest()


def write_module_config(folder: Path, model: VideoLanguageModel, kind: str, weights: str) -> None:
    """Write the `config.json` of the fp32 weights in `folder`, the last file of a module.

    Args:
        kind: `ENCODER` or `DECODER`.
    """
    network = empty_network(model, kind)
    numbers = model.encoder.to_dict() if kind == ENCODER else model.decoder.to_dict()
    config = _module_config(kind, numbers, network)
    _write_config(folder, config, TRAINED, weights, network.tied)


def fill_in_place(network: Any, folder: Path) -> None:
    """Copy a module's fp32 weights into an allocated network, a tensor at a time.

    Raises:
        AtomError: other precision, broken file, or weights that do not fit or are not finite.
    """
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    if _recipe(config) != TRAINED.recipe:
        raise AtomError(f"{folder} is {_recipe(config)}; training starts from fp32 weights")
    file = SafetensorsFile(folder / WEIGHTS_FILE)
    expected = {k for k in network.checkpoint_state_dict() if k not in network.tied}
    if unmatched := sorted(expected ^ file.entries.keys()):
        raise AtomError(
            f"{file.path}: weight {unmatched[0]} is missing from the file or unknown to the model"
        )
    with _progress(file.path, "load") as bar:
        for name in file.entries:
            try:
                network.load_state_dict(
                    {name: finite(file.read(name, bar.update), file.path, name)}, strict=False
                )
            except RuntimeError as error:
                message = " ".join(str(error).split())[:300]
                raise AtomError(f"{file.path} does not fit its {CONFIG_FILE}: {message}") from error


def require_finite_weights(folder: Path) -> None:
    """Check the fp32 weights of a module, a tensor at a time.

    Raises:
        AtomError: a broken file, or a number that is infinite or NaN.
    """
    file = SafetensorsFile(folder / WEIGHTS_FILE)
    with _progress(file.path, "check") as bar:
        for name in file.entries:
            finite(file.read(name, bar.update), file.path, name)


def _progress(path: Path, verb: str) -> Any:
    """A bar of the bytes of a weight file, shown where it takes noticeably long."""
    return tqdm(
        total=path.stat().st_size, desc=f"{verb} {path.parent.name}", unit="B", unit_scale=True,
        delay=_SILENT_S, mininterval=_SILENT_S, leave=False,
    )  # fmt: skip


def read_config(folder: Path, kind: str, model: VideoLanguageModel | None = None) -> dict[str, Any]:
    """Read the `config.json` of a module folder and check it against `model` if given.

    Raises:
        AtomError: missing files, another kind of module, or other hyperparameters.
    """
    path = folder / CONFIG_FILE
    if not path.is_file() or not (folder / WEIGHTS_FILE).is_file():
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
    if model is None:
        return config
    side = "encoder" if kind == ENCODER else "decoder"
    expected = model.encoder.to_dict() if side == "encoder" else model.decoder.to_dict()
    for key, value in expected.items():
        if config["numbers"].get(key) != value:
            raise AtomError(
                f"{folder} was made with model.{side}.{key}={config['numbers'].get(key)}, the "
                f"configuration says {value}; choose the matching model or another checkpoint"
            )
    return config


def _load_weights(
    network: nn.Module, folder: Path, config: Mapping[str, Any], quantiser: Quantiser
) -> None:
    path = folder / WEIGHTS_FILE
    if config["network"] != type(network).__name__:
        raise AtomError(
            f"{folder} holds a {config['network']}, the model has a {type(network).__name__}; "
            "choose the matching model or another checkpoint"
        )
    form = getattr(network, "form", "")
    if not quantiser.is_identity and config["form"] != form:
        raise AtomError(
            f"{folder} was quantised with model.form={config['form']}, the configuration has "
            f"{form}; delete {folder.parent}, it is quantised again on the next run"
        )
    require_memory(path.stat().st_size, f"loading {path}")
    with _progress(path, "load") as bar:
        tensors, metadata = read_safetensors(path, bar.update)
    state = quantiser.unpack(tensors, metadata)
    tied: Mapping[str, str] = config["tied"]
    state |= {name: state[source] for name, source in tied.items()}
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        message = " ".join(str(error).split())[:300]
        raise AtomError(f"{path} does not fit its {CONFIG_FILE}: {message}") from error
    for name, source in tied.items():
        owner, _, key = name.rpartition(".")
        setattr(network.get_submodule(owner), key, network.get_parameter(source))
    network.init_buffers()  # type: ignore[operator]
    for parameter in network.parameters():
        parameter.requires_grad_(False)
