"""Settings that cannot train are refused by name, and those of every experiment are not."""

from pathlib import Path

import pytest

from atom_repro.config import CONF, compose
from atom_repro.datatypes import AtomError
from atom_repro.training.settings import require_sensible


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.learning_rate=1e8", "train.learning_rate=100000000.0: must be above 0 and at most"),
        ("train.learning_rate=0.0", "above 0"),
        ("train.optimiser=sgd", "train.optimiser='sgd' is neither 'adamw' nor 'muon'"),
        ("train.shard=true", "train.optimiser=muon needs whole matrices"),
        ("train.learning_rate=nan", "train.learning_rate=nan: must be above 0"),
        ("train.visual_learning_rate=-1e-4", "train.visual_learning_rate=-0.0001"),
        ("train.batch_size=0", "train.batch_size=0: must be at least 1"),
        ("train.accumulate=-1", "train.accumulate=-1: must be at least 1"),
        ("train.warmup_steps=-5", "train.warmup_steps=-5: must be at least 0"),
        ("train.clip_norm=-1.0", "train.clip_norm=-1.0: must be at least 0"),
        ("train.weight_decay=inf", "train.weight_decay=inf: must be at least 0"),
        ("train.checkpoint_every=0", "train.checkpoint_every=0: must be at least 1"),
        ("train.betas=[0.9]", "must be two numbers"),
        ("train.betas=[0.9,1.0]", "below 1"),
        ("train.text_mix.script=-1.0", "shares must be at least 0"),
        ("train.max_steps=0", "there is nothing to train at scale=smoke"),
        ("train.epochs=-1", "train.epochs=-1: must be at least 1"),
    ],
)
def test_a_setting_that_cannot_train_is_named(override, said):
    cfg = compose("finetune", ["scale=smoke", override])
    with pytest.raises(AtomError) as caught:
        require_sensible(cfg.train, cfg.scale.name)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "path", sorted((CONF / "experiment/finetune").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_recipe_is_sensible(path: Path):
    cfg = compose("finetune", [f"experiment=finetune/{path.stem}"])
    require_sensible(cfg.train, cfg.scale.name)
