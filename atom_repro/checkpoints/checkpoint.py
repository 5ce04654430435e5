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
from typing import Any, cast

from torch import nn

from atom_repro.datatypes import AtomError
from atom_repro.engines import eager
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
        label: str = eager.read_config(self.encoder("fp32"), "video_encoder")["weights"]
        return label

    def prepare(self, quantiser: Quantiser, model: VideoLanguageModel) -> Mapping[str, Any]:
        """Make the modules of a precision if they are missing or of other weights.

        Returns:
            The quantiser's report a module; empty for fp32.
        """
        weights = self.weights()
        eager.read_config(self.encoder("fp32"), "video_encoder", model)
        eager.read_config(self.decoder("fp32"), "text_decoder", model)
        if quantiser.name == "fp32":
            return {}
        report = self.folder / quantiser.name / REPORT
        if report.is_file():
            made: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
            if made["weights"] == weights and made["recipe"] == repr(quantiser):
                modules: dict[str, Any] = made["modules"]
                return modules
            report.unlink()
        encoder = eager.load_encoder(self.encoder("fp32"), model)
        decoder = eager.load_decoder(self.decoder("fp32"), model)
        seeing, writing = cast(nn.Module, encoder.network), cast(nn.Module, decoder.network)
        modules = {
            "encoder": quantiser.quantise(seeing).to_dict(),
            "decoder": quantiser.quantise(writing).to_dict(),
        }
        name = quantiser.name
        eager.save_encoder(self.encoder(name), model, seeing, quantiser, weights)
        eager.save_decoder(
            self.decoder(name), model, writing, decoder.tokenizer, quantiser, weights
        )
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
            sizes[name] = sum(f.stat().st_size for f in folder.iterdir())
        return sizes
