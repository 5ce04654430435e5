"""What a training starts from, checked before any work; `conversion` reads it."""

from pathlib import Path

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.datatypes import AtomError
from atom_repro.engines import eager
from atom_repro.models.vlm import VideoLanguageModel


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
        eager.read_config(side, kind, model)
    return start
