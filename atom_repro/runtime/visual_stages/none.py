"""No stage between encoder and decoder."""

from atom_repro.runtime.visual_stages.visual_stage import VisualStage


def build() -> tuple[VisualStage, ...]:
    """Build the empty sequence of `conf/visual_stages/none.yaml`."""
    return ()
