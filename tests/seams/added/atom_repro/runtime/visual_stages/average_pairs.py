"""A stage that averages neighbouring visual tokens, so that the decoder sees half as many."""

from collections.abc import Mapping

from atom_repro.device.compute import ComputeDevice
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.runtime.captioning import ClipBatch
from atom_repro.runtime.residency import ModuleLoader, Role
from atom_repro.runtime.visual_stages.visual_stage import Session, VisualStage

POOLER = Role("pooler")


class Pooler:
    """A module without weights, to have one that is loaded and released."""

    def __call__(self, visual: VisualTokens) -> VisualTokens:
        return averaged(visual)

    def release(self) -> None:
        pass


class AveragePairs:
    name = "average_pairs"

    def loaders(self, device: ComputeDevice) -> Mapping[str, ModuleLoader]:
        return {POOLER.module: ModuleLoader(Pooler, 0)}

    def __call__(self, runtime: Session, batch: ClipBatch, prompt: str) -> VisualTokens:
        return runtime.run(POOLER, self.name, batch.item, lambda pooler: pooler(batch.visual))

    def example(self, visual: VisualTokens) -> VisualTokens:
        return averaged(visual)


def averaged(visual: VisualTokens) -> VisualTokens:
    pairs = visual.tokens[:, : visual.count // 2 * 2].unflatten(1, (-1, 2))
    return VisualTokens(pairs.mean(dim=2))


def build() -> tuple[VisualStage, ...]:
    """Build the stage of `conf/visual_stages/average_pairs.yaml`."""
    return (AveragePairs(),)
