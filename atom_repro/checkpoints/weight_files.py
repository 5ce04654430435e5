"""Files of weights, read and written a tensor at a time.

Reading a safetensors file through a mapping leaves its pages resident beside the copies, and the
library's writer needs every tensor at once. Both sides are written out here, over plain reads and
writes, so that loading needs the size of the file and converting the size of its largest tensor.
A pickled file is read as data only: what would run code is refused before it runs.

Source of the format: the safetensors README (8 bytes of header length, JSON, raw little-endian).
"""

import hashlib
import json
import math
import pickle
import re
from collections.abc import Mapping
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
# A pickled file can only be mapped; it is mapped anew after so many bytes, to let go of its pages.
_WINDOW = 64 * 2**20


@dataclass(frozen=True)
class Entry:
    """A tensor in a file; `start` counts from the file's first byte."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int = 0

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class WeightFile(Protocol):
    """What is in a released checkpoint, without reading it."""

    @property
    def entries(self) -> Mapping[str, Entry]: ...

    def read(self, key: str) -> Tensor:
        """A copy in memory of its own, in the file's precision."""
        ...


class SafetensorsFile:
    """One file.

    Raises:
        AtomError: it is truncated, or is no safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            header, data = _header(path)
            self.metadata: dict[str, str] = header.pop("__metadata__", {})
            self.entries = {
                key: Entry(
                    _DTYPES[told["dtype"]], tuple(told["shape"]), data + told["data_offsets"][0]
                )
                for key, told in header.items()
            }
            ends = [data + told["data_offsets"][1] for told in header.values()]
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

    def read(self, key: str) -> Tensor:
        entry = self.entries[key]
        raw = torch.empty(entry.nbytes, dtype=torch.uint8)
        with self.path.open("rb", buffering=0) as stream:
            stream.seek(entry.start)
            _read_into(stream, raw.numpy().data, self.path)
        return raw.view(entry.dtype).reshape(entry.shape)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header and where the data starts."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= path.stat().st_size - 8:
            raise ValueError(f"a header of {length} bytes does not fit in the file")
        return json.loads(stream.read(length)), 8 + length


def _read_into(stream: Any, room: memoryview, path: Path) -> None:
    done = 0
    while done < len(room):  # the system reads at most 2 GiB a call
        count = stream.readinto(room[done:])
        if not count:
            raise AtomError(f"{path} cannot be read: it ends too early; fetch or write it again")
        done += count


class ShardedSafetensors:
    """The files that an index names.

    Raises:
        AtomError: a shard is missing or truncated, or does not hold what the index says.
    """

    def __init__(self, index: Path) -> None:
        try:
            where: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, KeyError, TypeError) as error:
            raise AtomError(f"{index} is no index of shards ({error}); fetch it again") from error
        shards: dict[str, SafetensorsFile] = {}
        for name in sorted(set(where.values())):
            path = index.parent / name
            if Path(name).name != name or not path.is_file():
                raise AtomError(f"{path} is missing, {index.name} names it; fetch it again")
            shards[name] = SafetensorsFile(path)
        self._shard: dict[str, SafetensorsFile] = {}
        for key, name in where.items():
            if key not in shards[name].entries:
                raise AtomError(f"{index} places {key} in {name}, which lacks it; fetch both again")
            self._shard[key] = shards[name]
        self.entries = {key: shard.entries[key] for key, shard in self._shard.items()}

    def read(self, key: str) -> Tensor:
        return self._shard[key].read(key)


class PickledFile:
    """A `.pth` or `.bin`: the state under `model` or `module`, or at the top.

    Raises:
        AtomError: it is truncated, or holds something other than tensors and plain values, which
            is refused before it runs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()
        self.entries = {key: Entry(t.dtype, tuple(t.shape)) for key, t in self._state.items()}

    def _open(self) -> None:
        self._state = _pickled_state(self.path)
        self._touched = 0

    def read(self, key: str) -> Tensor:
        if self._touched > _WINDOW:
            self._open()
        self._touched += self.entries[key].nbytes
        return self._state[key].clone()


def _pickled_state(path: Path) -> dict[str, Tensor]:
    try:
        held = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = found.group(1) if found else "something that is no tensor"
        raise AtomError(
            f"{path} is refused: it holds {what}, which could run code, and nothing of it was run; "
            "get the file from its publisher, or its weights as safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise AtomError(f"{path} cannot be read ({first}); fetch it again") from error
    for name in ("model", "module"):
        if isinstance(held, dict) and isinstance(held.get(name), dict):
            held = held[name]
            break
    if not isinstance(held, dict) or not held:
        raise AtomError(f"{path} holds no weights under 'model', 'module' or at its top")
    for key, value in held.items():
        if not isinstance(value, Tensor):
            raise AtomError(f"{path} holds a {type(value).__name__} at {key!r} where weights go")
    return dict(held)


def open_weights(place: Path) -> WeightFile:
    """The weights of a file, or of a folder as the hub has it.

    Raises:
        AtomError: no weights there, several, or broken ones.
    """
    if place.is_dir():
        place = _weights_in(place)
    if place.name.endswith(".index.json"):
        return ShardedSafetensors(place)
    if place.suffix == ".safetensors":
        return SafetensorsFile(place)
    if place.suffix in (".pth", ".pt", ".bin"):
        return PickledFile(place)
    raise AtomError(f"{place} is neither .safetensors, .safetensors.index.json, .pth, .pt nor .bin")


def _weights_in(folder: Path) -> Path:
    for name in (INDEX, "model.safetensors"):
        if (folder / name).is_file():
            return folder / name
    for pattern in ("*.safetensors", "*.pth", "*.bin"):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise AtomError(f"{folder} holds {len(found)} {pattern} and no {INDEX}; name one file")
    raise AtomError(f"{folder} holds no weights (*.safetensors, *.pth)")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file, each in memory of its own, and its metadata."""
    file = SafetensorsFile(path)
    return {key: file.read(key) for key in file.entries}, file.metadata


class SafetensorsWriter:
    """Writes fp32 tensors in the order of `shapes`, and hashes names and bytes on the way."""

    def __init__(self, stream: BinaryIO, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._stream, self._left = stream, dict(shapes)
        self.digest = hashlib.sha256()
        header, at = {}, 0
        for name, shape in shapes.items():
            end = at + 4 * math.prod(shape)
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, end]}
            at = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        stream.write(len(text).to_bytes(8, "little") + text)

    def add(self, name: str, tensor: Tensor) -> None:
        """Append the next tensor."""
        expected = next(iter(self._left), None)
        if name != expected or tuple(tensor.shape) != self._left[name]:
            raise ValueError(f"{name} {tuple(tensor.shape)} is not what comes next ({expected})")
        if tensor.dtype != torch.float32:
            raise ValueError(f"{name} is {tensor.dtype}, files hold fp32")
        del self._left[name]
        raw = tensor.detach().contiguous().view(-1).numpy().data.cast("B")
        self.digest.update(name.encode())
        self.digest.update(raw)
        self._stream.write(raw)

    def finish(self) -> None:
        if self._left:
            raise ValueError(
                f"{len(self._left)} tensors were not written, {next(iter(self._left))}"
            )
