"""Checkpoint folder of one model: encoder and decoder modules in every precision.

    <work>/checkpoints/<model>-<dataset>-<scale>-seed<n>/
        fp32/encoder  fp32/decoder    the weights with the best validation score
        int8/encoder  int8/decoder    quantised from fp32 on first use, with quant_report.json;
                                      a folder for each recipe of quantisation
        threads/                      seconds of both modules by their threads, where calibrated
        state/                        the state that an unfinished training resumes from
        earlier/                      a checkpoint: the modules that a training replaced last

Encoder and decoder are separate in every precision: each is loaded and released on its own.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from tqdm import tqdm

from atom_repro.checkpoints import module_files
from atom_repro.checkpoints.module_files import TRAINED
from atom_repro.datatypes import AtomError
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.quant.recipe import Quantiser
from atom_repro.records.atomic import atomic_write

REPORT = "quant_report.json"


def trained_label(*modules: nn.Module) -> str:
    """Label `trained:<sha>` of the weights of `modules`, independent of the file format."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return f"trained:{digest.hexdigest()[:16]}"


@dataclass(frozen=True)
class Checkpoint:
    """The folder of one trained model."""

    folder: Path

    @classmethod
    def of(cls, cfg: Any, model: VideoLanguageModel, dataset: Any) -> "Checkpoint":
        """Checkpoint that training with this configuration writes, or `checkpoint.folder`."""
        if cfg.checkpoint.folder:
            return cls(Path(cfg.checkpoint.folder))
        name = f"{model.name}-{dataset.name}-{cfg.scale.name}-seed{cfg.seed}"
        return cls(Path(cfg.paths.work) / "checkpoints" / name)

    @property
    def state(self) -> Path:
        """Folder of the resume state of an unfinished training."""
        return self.folder / "state"

    @property
    def complete(self) -> bool:
        """Whether both fp32 modules exist."""
        return self.has_modules(TRAINED)

    def has_modules(self, quantiser: Quantiser) -> bool:
        """Whether both modules exist as a quantiser stores them."""
        return self.encoder(quantiser).is_dir() and self.decoder(quantiser).is_dir()

    def has_weights(self, weights: str) -> bool:
        """Whether both fp32 modules exist and have this weights label."""
        return self.complete and self._labels() == (weights, weights)

    def encoder(self, quantiser: Quantiser = TRAINED) -> Path:
        """Folder of the encoder as a quantiser stores it; by default as trained."""
        return self.folder / quantiser.recipe / "encoder"

    def decoder(self, quantiser: Quantiser = TRAINED) -> Path:
        """Folder of the decoder as a quantiser stores it; by default as trained."""
        return self.folder / quantiser.recipe / "decoder"

    def weights(self) -> str:
        """The label of the fp32 weights.

        Raises:
            AtomError: an fp32 module is missing, or the two are of different trainings.
        """
        encoder, decoder = self._labels()
        if encoder != decoder:
            raise AtomError(
                f"{self.encoder().parent}: the encoder is of {encoder} and the decoder of "
                f"{decoder}; let the training that was killed between them go on, or put two of "
                "one training together"
            )
        return encoder

    def _labels(self) -> tuple[str, str]:
        """The weights labels of encoder and decoder."""
        encoder = module_files.read_config(self.encoder(), module_files.ENCODER)
        decoder = module_files.read_config(self.decoder(), module_files.DECODER)
        return encoder["weights"], decoder["weights"]

    def prepare(self, quantiser: Quantiser, model: VideoLanguageModel) -> Mapping[str, Any]:
        """Write the quantised modules if they are missing or were made from other weights.

        Returns:
            The quantiser's report for each module; empty for fp32.

        Raises:
            AtomError: a module is missing or of another model; weights to quantise are not finite.
        """
        weights = self.weights()
        module_files.read_config(self.encoder(), module_files.ENCODER, model)
        module_files.read_config(self.decoder(), module_files.DECODER, model)
        if quantiser.is_identity:
            return {}
        report_path = self.folder / quantiser.recipe / REPORT
        if report_path.is_file():
            stored: dict[str, Any] = json.loads(report_path.read_text(encoding="utf-8"))
            if stored["weights"] == weights and stored["recipe"] == repr(quantiser):
                modules: dict[str, Any] = stored["modules"]
                return modules
            report_path.unlink()
        self.require_finite()  # once quantised, they may look like any others
        with tqdm(total=2, desc=f"quantise {quantiser.recipe}", unit="module", leave=False) as bar:
            modules = self._quantise(quantiser, model, weights, bar.update)
        report = {"weights": weights, "recipe": repr(quantiser), "modules": modules}
        with atomic_write(report_path) as building:
            building.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        return modules

    def _quantise(
        self,
        quantiser: Quantiser,
        model: VideoLanguageModel,
        weights: str,
        progress: Callable[[int], object],
    ) -> dict[str, Any]:
        """Quantise one module after the other, so that memory holds one; return the reports."""
        modules = {}
        encoder, _ = module_files.read_module(self.encoder(), model, module_files.ENCODER, TRAINED)
        modules["encoder"] = quantiser.quantise(encoder.eval()).to_dict()
        module_files.save_encoder(self.encoder(quantiser), model, encoder, quantiser, weights)
        del encoder
        progress(1)
        decoder, _ = module_files.read_module(self.decoder(), model, module_files.DECODER, TRAINED)
        tokenizer = Tokenizer.load(self.decoder(), model.specials)
        modules["decoder"] = quantiser.quantise(decoder.eval()).to_dict()
        module_files.save_decoder(
            self.decoder(quantiser), model, decoder, tokenizer, quantiser, weights
        )
        progress(1)
        return modules

    def require_finite(self) -> None:
        """Check all fp32 weights.

        Raises:
            AtomError: one is infinite or NaN, as after a training that diverged.
        """
        module_files.require_finite_weights(self.encoder())
        module_files.require_finite_weights(self.decoder())

    def bytes(self, quantiser: Quantiser) -> dict[str, int]:
        """Size of each module on disk, in bytes.

        Raises:
            AtomError: a module is missing.
        """
        sizes = {}
        for name, folder in (
            ("encoder", self.encoder(quantiser)),
            ("decoder", self.decoder(quantiser)),
        ):
            if not folder.is_dir():
                way = f"delete {folder.parent}, it is quantised again on the next run"
                if quantiser.is_identity:
                    way = "run train.finetune first"
                raise AtomError(f"no {quantiser.recipe} {name} in {self.folder}; {way}")
            sizes[name] = module_files.folder_bytes(folder)
        return sizes


def starting_checkpoint(folder: str, model: VideoLanguageModel, scale: str) -> Checkpoint | None:
    """Checkpoint that training starts from (`train.start`), None for random weights.

    Raises:
        AtomError: a module is missing or of another model, or no folder is set at scale=paper.
    """
    if not folder:
        if scale == "paper":
            raise AtomError(
                "train.start is empty and scale=paper starts from released weights; set it to what "
                "`python -m train.convert` wrote: a folder with fp32/encoder and fp32/decoder"
            )
        return None
    checkpoint = Checkpoint(Path(folder))
    for module_folder, kind in (
        (checkpoint.encoder(), module_files.ENCODER),
        (checkpoint.decoder(), module_files.DECODER),
    ):
        if not module_folder.is_dir():
            raise AtomError(
                f"train.start={folder} has no fp32/{module_folder.name}; give a checkpoint folder "
                "with fp32/encoder and fp32/decoder"
            )
        module_files.read_config(module_folder, kind, model)
    return checkpoint


def starting_tokenizer(checkpoint: Checkpoint, model: VideoLanguageModel) -> Tokenizer:
    """Tokenizer stored with the decoder of a checkpoint."""
    return Tokenizer.load(checkpoint.decoder(), model.specials)
