"""Readers and a writer of weight files (safetensors, shards, pickles), a tensor at a time.

Reading a memory-mapped safetensors file leaves its pages resident beside the copies, and the
library's writer needs every tensor at once. Here both use plain reads and writes, so that loading
needs the size of the file and converting the size of its largest tensor. A pickled file is read
as data only: what would run code is refused before it runs.

Source of the format: the safetensors README (8 bytes of header length, JSON, raw little-endian).
"""

import hashlib
import json
import math
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

from atom_repro.datatypes import AtomError

INDEX = "model.safetensors.index.json"
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
# A pickled file can only be memory-mapped; it is mapped anew after so many bytes to free pages.
_REMAP_BYTES = 64 * 2**20
_READ_BYTES = 64 * 2**20  # between two signs of progress; a call reads at most 2 GiB

Progress = Callable[[int], object]


def _unseen(count: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class TensorEntry:
    """Type, shape and offset of a tensor in a file; `start` counts from the file's first byte."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int = 0

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class WeightFile(Protocol):
    """A file of weights: its entries are known without reading, tensors are read on demand."""

    @property
    def entries(self) -> Mapping[str, TensorEntry]: ...

    def read(self, key: str) -> Tensor:
        """A copy of one tensor, in the file's precision."""
        ...


class SafetensorsFile:
    """One safetensors file.

    Raises:
        AtomError: it is truncated, or is no safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            header, data = _header(path)
            self.metadata: dict[str, str] = header.pop("__metadata__", {})
            self.entries = {
                key: TensorEntry(
                    _DTYPES[info["dtype"]], tuple(info["shape"]), data + info["data_offsets"][0]
                )
                for key, info in header.items()
            }
            ends = [data + info["data_offsets"][1] for info in header.values()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AtomError(
                f"{path} cannot be read as safetensors ({error}); fetch or write it again"
            ) from error
        size = path.stat().st_size
        if max(ends, default=data) != size:
            raise AtomError(
                f"{path} cannot be read: it has {size} bytes, its header says "
                f"{max(ends, default=data)}; fetch or write it again"
            )
        for (key, entry), end in zip(self.entries.items(), ends, strict=True):
            if entry.start < data or entry.start + entry.nbytes != end:
                raise AtomError(
                    f"{path} cannot be read: its header gives {key} another size than its shape"
                )

    def read(self, key: str, progress: Progress = _unseen) -> Tensor:
        """As `WeightFile.read`; `progress` is called with the bytes since its last call."""
        entry = self.entries[key]
        raw = torch.empty(entry.nbytes, dtype=torch.uint8)
        with self.path.open("rb", buffering=0) as stream:
            stream.seek(entry.start)
            _read_into(stream, raw.numpy().data, self.path, progress)
        return raw.view(entry.dtype).reshape(entry.shape)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The parsed header and the offset at which the data starts."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= path.stat().st_size - 8:
            raise ValueError(f"a header of {length} bytes does not fit in the file")
        return json.loads(stream.read(length)), 8 + length


def _read_into(stream: Any, buffer: memoryview, path: Path, progress: Progress) -> None:
    done = 0
    while done < len(buffer):
        count = stream.readinto(buffer[done : done + _READ_BYTES])
        if not count:
            raise AtomError(f"{path} cannot be read: it ends too early; fetch or write it again")
        done += count
        progress(count)


class ShardedSafetensors:
    """The safetensors files that an index (`model.safetensors.index.json`) names.

    Raises:
        AtomError: a shard is missing or truncated, or does not hold what the index says.
    """

    def __init__(self, index: Path) -> None:
        try:
            weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, KeyError, TypeError) as error:
            raise AtomError(
                f"{index} is not a safetensors index ({error}); fetch it again"
            ) from error
        shards: dict[str, SafetensorsFile] = {}
        for name in sorted(set(weight_map.values())):
            path = index.parent / name
            if Path(name).name != name or not path.is_file():
                raise AtomError(f"{path} is missing, {index.name} names it; fetch it again")
            shards[name] = SafetensorsFile(path)
        self._shard: dict[str, SafetensorsFile] = {}
        for key, name in weight_map.items():
            if key not in shards[name].entries:
                raise AtomError(f"{index} places {key} in {name}, which lacks it; fetch both again")
            self._shard[key] = shards[name]
        self.entries = {key: shard.entries[key] for key, shard in self._shard.items()}

    def read(self, key: str) -> Tensor:
        return self._shard[key].read(key)


class PickledFile:
    """A `.pth` or `.bin` file: the state dict under `model` or `module`, or at the top.

    Raises:
        AtomError: it is truncated, or holds something other than tensors and plain values, which
            is refused before it runs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()
        self.entries = {key: TensorEntry(t.dtype, tuple(t.shape)) for key, t in self._state.items()}

    def _open(self) -> None:
        self._state = _pickled_state(self.path)
        self._bytes_read = 0

    def read(self, key: str) -> Tensor:
        if self._bytes_read > _REMAP_BYTES:
            self._open()
        self._bytes_read += self.entries[key].nbytes
        return self._state[key].clone()


def _pickled_state(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL (\S+)", str(error))
        content = match.group(1) if match else "something that is no tensor"
        raise AtomError(
            f"{path} is refused: it holds {content}, which could run code, and nothing of it was "
            "run; get the file from its publisher, or its weights as safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        message = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise AtomError(f"{path} cannot be read ({message}); fetch it again") from error
    for name in ("model", "module"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
            break
    if not isinstance(state, dict) or not state:
        raise AtomError(f"{path} holds no weights under 'model', 'module' or at its top")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise AtomError(f"{path} holds a {type(value).__name__} at {key!r} where weights go")
    return dict(state)


def open_weights(path: Path) -> WeightFile:
    """Open a weight file, or the one in a folder with the layout of the Hugging Face hub.

    Raises:
        AtomError: no weight file, several, or a broken one.
    """
    if path.is_dir():
        path = _weights_in(path)
    if path.name.endswith(".index.json"):
        return ShardedSafetensors(path)
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    if path.suffix in (".pth", ".pt", ".bin"):
        return PickledFile(path)
    raise AtomError(f"{path} is neither .safetensors, .safetensors.index.json, .pth, .pt nor .bin")


def _weights_in(folder: Path) -> Path:
    for name in (INDEX, "model.safetensors"):
        if (folder / name).is_file():
            return folder / name
    for pattern in ("*.safetensors", "*.pth", "*.bin"):
        matches = sorted(folder.glob(pattern))
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise AtomError(
                f"{folder} holds {len(matches)} {pattern} and no {INDEX}; name one file"
            )
    raise AtomError(f"{folder} holds no weights (*.safetensors, *.pth)")


def read_safetensors(
    path: Path, progress: Progress = _unseen
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a safetensors file, each into its own memory, and its metadata."""
    file = SafetensorsFile(path)
    return {key: file.read(key, progress) for key in file.entries}, file.metadata


def finite(tensor: Tensor, path: object, name: str) -> Tensor:
    """Return a weight that was read from a file, if all its numbers are finite.

    Raises:
        AtomError: one is infinite or NaN, as after a training that diverged.
    """
    # One pass without a copy: NaN is both extremes of its tensor.
    if tensor.is_floating_point() and tensor.numel():
        low, high = tensor.aminmax()
        if not (low.isfinite() and high.isfinite()):
            raise AtomError(
                f"{path}: weights are not finite: {name}; train, convert or fetch them again"
            )
    return tensor


class SafetensorsWriter:
    """Writes fp32 tensors in the order of `shapes`, and hashes names and bytes on the way."""

    def __init__(self, stream: BinaryIO, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._stream, self._remaining = stream, dict(shapes)
        self.digest = hashlib.sha256()
        header, offset = {}, 0
        for name, shape in shapes.items():
            end = offset + 4 * math.prod(shape)
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        stream.write(len(text).to_bytes(8, "little") + text)

    def add(self, name: str, tensor: Tensor) -> None:
        """Append the next tensor."""
        expected = next(iter(self._remaining), None)
        if name != expected or tuple(tensor.shape) != self._remaining[name]:
            raise ValueError(f"{name} {tuple(tensor.shape)} is not what comes next ({expected})")
        if tensor.dtype != torch.float32:
            raise ValueError(f"{name} is {tensor.dtype}, files hold fp32")
        del self._remaining[name]
        raw = tensor.detach().contiguous().view(-1).numpy().data.cast("B")
        self.digest.update(name.encode())
        self.digest.update(raw)
        self._stream.write(raw)

    def finish(self) -> None:
        if self._remaining:
            raise ValueError(
                f"{len(self._remaining)} tensors were not written, {next(iter(self._remaining))}"
            )
