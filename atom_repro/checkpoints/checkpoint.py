"""Where the modules of a trained model lie, in every precision.

    <work>/checkpoints/<model>-<dataset>-<scale>-seed<n>/
        fp32/encoder  fp32/decoder    what training found best
        int8/encoder  int8/decoder    made from fp32 on first use, with quant_report.json
        state/                        what an unfinished training resumes from

Encoder and decoder are apart in every precision: each is read, and dropped, on its own.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from atom_repro.checkpoints import module_files
from atom_repro.datatypes import AtomError
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.quant.recipe import Quantiser
from atom_repro.records.atomic import atomically

REPORT = "quant_report.json"


def trained_label(*modules: nn.Module) -> str:
    """`trained:<sha>`: which weights these are, whatever file they lie in."""
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
        """The folder that training with this configuration writes, or the one that it gives."""
        if cfg.checkpoint.folder:
            return cls(Path(cfg.checkpoint.folder))
        name = f"{model.name}-{dataset.name}-{cfg.scale.name}-seed{cfg.seed}"
        return cls(Path(cfg.paths.work) / "checkpoints" / name)

    @property
    def state(self) -> Path:
        """The folder of an unfinished training."""
        return self.folder / "state"

    @property
    def complete(self) -> bool:
        """Whether both fp32 modules are there."""
        return self.encoder("fp32").is_dir() and self.decoder("fp32").is_dir()

    def holds(self, weights: str) -> bool:
        """Whether the fp32 modules are there and are these weights."""
        return self.complete and self.weights() == weights

    def encoder(self, precision: str) -> Path:
        return self.folder / precision / "encoder"

    def decoder(self, precision: str) -> Path:
        return self.folder / precision / "decoder"

    def weights(self) -> str:
        """The label of the fp32 weights.

        Raises:
            AtomError: nothing was trained here.
        """
        label: str = module_files.read_config(self.encoder("fp32"), "video_encoder")["weights"]
        return label

    def prepare(self, quantiser: Quantiser, model: VideoLanguageModel) -> Mapping[str, Any]:
        """Make the modules of a precision if they are missing or of other weights.

        Returns:
            The quantiser's report a module; empty for fp32.
        """
        weights = self.weights()
        module_files.read_config(self.encoder("fp32"), "video_encoder", model)
        module_files.read_config(self.decoder("fp32"), "text_decoder", model)
        if quantiser.name == "fp32":
            return {}
        report = self.folder / quantiser.name / REPORT
        if report.is_file():
            made: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
            if made["weights"] == weights and made["recipe"] == repr(quantiser):
                modules: dict[str, Any] = made["modules"]
                return modules
            report.unlink()
        # One module after the other, so that memory holds one.
        name, modules = quantiser.name, {}
        encoder, _ = module_files.read_encoder(self.encoder("fp32"), model)
        modules["encoder"] = quantiser.quantise(encoder.eval()).to_dict()
        module_files.save_encoder(self.encoder(name), model, encoder, quantiser, weights)
        del encoder
        decoder, _ = module_files.read_decoder(self.decoder("fp32"), model)
        tokenizer = Tokenizer.load(self.decoder("fp32"), model.specials)
        modules["decoder"] = quantiser.quantise(decoder.eval()).to_dict()
        module_files.save_decoder(self.decoder(name), model, decoder, tokenizer, quantiser, weights)
        text = {"weights": weights, "recipe": repr(quantiser), "modules": modules}
        with atomically(report) as building:
            building.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
        return modules

    def bytes(self, precision: str) -> dict[str, int]:
        """Bytes on disk of each module."""
        sizes = {}
        for name, folder in (
            ("encoder", self.encoder(precision)),
            ("decoder", self.decoder(precision)),
        ):
            if not folder.is_dir():
                raise AtomError(f"no {precision} {name} in {self.folder}; run train.finetune first")
            sizes[name] = module_files.folder_bytes(folder)
        return sizes


def starting_point(folder: str, model: VideoLanguageModel, scale: str) -> Checkpoint | None:
    """The checkpoint in `folder`, None for random weights.

    Raises:
        AtomError: nothing there, weights of another model, or none given at the paper's scale.
    """
    if not folder:
        if scale == "paper":
            raise AtomError(
                "train.start is empty and scale=paper starts from released weights; set it to what "
                "`python -m train.convert` wrote: a folder with fp32/encoder and fp32/decoder"
            )
        return None
    start = Checkpoint(Path(folder))
    for side, kind in (
        (start.encoder("fp32"), "video_encoder"),
        (start.decoder("fp32"), "text_decoder"),
    ):
        if not side.is_dir():
            raise AtomError(
                f"train.start={folder} has no fp32/{side.name}; give a checkpoint folder with "
                "fp32/encoder and fp32/decoder"
            )
        module_files.read_config(side, kind, model)
    return start


def starting_tokenizer(checkpoint: Checkpoint, model: VideoLanguageModel) -> Tokenizer:
    """The tokenizer that the decoder of a checkpoint was made with."""
    return Tokenizer.load(checkpoint.decoder("fp32"), model.specials)
