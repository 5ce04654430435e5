"""A stage that averages neighbouring visual tokens, so that the decoder sees half as many."""

from collections.abc import Mapping

from torch import Tensor

from atom_repro.device.compute import ComputeDevice
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.runtime.captioning import ClipBatch
from atom_repro.runtime.residency import ModuleLoader, Role
from atom_repro.runtime.visual_stages.visual_stage import StageRuntime, VisualStage

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

    def __call__(self, runtime: StageRuntime, batch: ClipBatch, prompt: str) -> VisualTokens:
        return runtime.run(POOLER, self.name, batch.item, lambda pooler: pooler(batch.visual))

    def example(self, visual: VisualTokens) -> VisualTokens:
        return averaged(visual)


def averaged(visual: VisualTokens) -> VisualTokens:
    def pairs(tokens: Tensor) -> Tensor:
        return tokens[:, : tokens.shape[1] // 2 * 2].unflatten(1, (-1, 2)).mean(dim=2)

    features = {name: pairs(feature) for name, feature in visual.features.items()}
    return VisualTokens(pairs(visual.tokens), features=features)


def build() -> tuple[VisualStage, ...]:
    """Build the stage of `conf/visual_stages/average_pairs.yaml`."""
    return (AveragePairs(),)
