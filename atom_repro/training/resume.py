"""Resume state of a training: saved so that a run killed at any point can go on.

One file, replaced atomically, holds weights, optimiser, random state and step (batches and rates
follow from the step); the loss journal beside it is truncated to that step on resume. The best
modules are written before the state that refers to them, so a kill between the two repeats a
validation and loses nothing. One training at a time has a checkpoint folder, and the modules of an
earlier one are moved aside before the first of this one's are written.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from typing import IO, Any, cast

import torch

from atom_repro.checkpoints import module_files
from atom_repro.checkpoints.checkpoint import Checkpoint, trained_label
from atom_repro.datatypes import AtomError
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.records.atomic import atomic_write
from atom_repro.records.journal import Journal
from atom_repro.records.lock import Lock, hold
from atom_repro.training.captioning_model import CaptioningModel
from atom_repro.training.lora import merged
from atom_repro.training.sharding import full_state, restore_state
from atom_repro.training.trainer import Trainer


class TrainingState:
    """Resume state, loss journal and best checkpoint of the run `key`.

    Args:
        trainer: its network and optimiser, sharded across processes or not.
        is_writer: whether this process writes the files; exactly one does, the others only read.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        key: str,
        trainer: Trainer,
        *,
        is_writer: bool = True,
    ) -> None:
        self.checkpoint, self.key, self.is_writer = checkpoint, key, is_writer
        self.network, self.optimiser = trainer.network, trainer.optimiser
        self.best: dict[str, Any] = {"step": 0, "cider": -1.0, "weights": ""}
        self.curve: list[dict[str, Any]] = []
        self._resumed = False
        self._file = checkpoint.state / "state.pt"
        self._earlier = checkpoint.folder / "earlier"
        self._journal_file = checkpoint.state / "curve.jsonl"
        self._journal: Journal | None = None
        self._lock: Lock | None = None

    def begin(self, *, fresh: bool, wait: Callable[[], object]) -> int:
        """Load the state of an interrupted run of the same key and delete any other; return the
        step to go on from. All processes call it, and each reads the file.

        Args:
            fresh: ignore a saved state.
            wait: barrier; returns when every process has called it.

        Raises:
            AtomError: another training has the folder.
        """
        if self.is_writer:
            folder = self.checkpoint.folder
            self._lock = hold(folder / "training.lock", folder, "set another checkpoint.folder")
        step = 0 if fresh else self._resume()
        wait()
        if self.is_writer:
            self._clear(step)
        return step

    def _resume(self) -> int:
        if not self._file.is_file():
            return 0
        # Read as weights only: a pickle could run code.
        saved = torch.load(self._file, weights_only=True, mmap=True)
        if saved["key"] != self.key:
            return 0
        self.best = saved["best"]
        restore_state(self.network, self.optimiser, saved)
        torch.set_rng_state(saved["random"])
        if saved["random_gpu"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(saved["random_gpu"])
        return int(saved["step"])

    def _clear(self, step: int) -> None:
        """Delete state and journal lines that are not of this run up to `step`."""
        if step == 0:
            shutil.rmtree(self.checkpoint.state, ignore_errors=True)
        self._journal = Journal(self._journal_file)
        self.curve = [line for line in self._journal.done if line["step"] <= step]
        self._resumed = step > 0
        self._journal.rewrite(self.curve)

    def log(self, **line: Any) -> None:
        """Add a line to the loss curve; `step` is one of its keys."""
        if not self.is_writer:
            return
        assert self._journal is not None, "begin() opens the journal"
        self.curve.append(line)
        self._journal.add(line)

    def values(self) -> dict[str, Any]:
        """Values of the record: best validation, training and validation seconds."""
        return {
            "validation_cider": self.best["cider"],
            "best_step": self.best["step"],
            "train_s": self.total_s("step_s"),
            "validation_s": self.total_s("validation_s"),
        }

    def total_s(self, name: str) -> float | None:
        """Sum of the seconds `name` over the curve's lines. None for a resumed run: the machine and
        load of its first part are unknown."""
        if self._resumed:
            return None
        return sum(float(line.get(name, 0.0)) for line in self.curve)

    def progress(self, losses: Mapping[str, float]) -> str:
        """Text for the progress bar: last loss (of images before those of captions), best CIDEr."""
        loss = losses.get("caption_loss", losses.get("image_loss", 0.0))
        return f"loss {loss:.2f}, best CIDEr {max(self.best['cider'], 0):.0f}"

    def record_validation(
        self, step: int, cider: float, network: CaptioningModel, tokenizer: Tokenizer, since: float
    ) -> None:
        """Log a validation, and save the network if it is the best so far.

        Args:
            since: `time.perf_counter()` when the validation began.
        """
        self._keep_if_best(step, cider, network, tokenizer)
        self.log(step=step, validation_cider=cider, validation_s=time.perf_counter() - since)

    def _keep_if_best(
        self, step: int, cider: float, network: CaptioningModel, tokenizer: Tokenizer
    ) -> None:
        if cider <= self.best["cider"]:
            return
        if not all(bool(p.isfinite().all()) for p in network.parameters()):
            raise AtomError(
                f"step {step}: some weights are not finite, the training diverges; lower "
                "train.learning_rate. The best modules before it are kept"
            )
        if not self.best["step"]:
            self._move_aside()
        model = network.model
        encoder, decoder = merged(network.encoder), merged(network.decoder)
        weights = trained_label(encoder, decoder)
        module_files.save_encoder(
            self.checkpoint.encoder(), model, encoder, module_files.TRAINED, weights
        )
        module_files.save_decoder(
            self.checkpoint.decoder(), model, decoder, tokenizer, module_files.TRAINED, weights
        )
        self.best = {"step": step, "cider": cider, "weights": weights}

    @property
    def moved(self) -> str:
        """Where the modules of an earlier training are, for display; empty where there was none."""
        return f", those before it in {self._earlier}" if self._earlier.is_dir() else ""

    def _move_aside(self) -> None:
        """Move another training's modules, of every precision, to `earlier`."""
        if not self.checkpoint.complete:
            return
        shutil.rmtree(self._earlier, ignore_errors=True)
        self._earlier.mkdir()
        for encoder in self.checkpoint.folder.glob("*/encoder"):
            encoder.parent.rename(self._earlier / encoder.parent.name)

    def save(self, step: int) -> None:
        """Save the resume state at `step`. All processes call it."""
        state = full_state(self.network, self.optimiser)
        if not self.is_writer:
            return
        saved: Mapping[str, Any] = {
            "key": self.key,
            "step": step,
            "best": self.best,
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            **state,
        }
        with atomic_write(self._file) as building, building.open("wb") as file:
            writer = _ErrorCapturingFile(file)
            try:
                torch.save(saved, cast(IO[bytes], writer))
            except Exception:
                if writer.error:
                    raise writer.error from None
                raise

    def close(self) -> None:
        """Delete the resume state of a recorded training, and let others have the folder."""
        if not self.is_writer:
            return
        if self._journal is not None:
            self._journal.close()
        shutil.rmtree(self.checkpoint.state)
        if self._lock is not None:
            self._lock.close()


class _ErrorCapturingFile:
    """A file that keeps the OSError of a failed write, which torch's own error hides."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None
        self.flush = file.flush

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise
