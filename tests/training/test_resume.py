"""The folder of a training: its modules are finite, of one training, and nobody else's are lost."""

import copy
from types import SimpleNamespace

import pytest
import torch
from words import Words

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.config import build
from atom_repro.config.composition import compose
from atom_repro.datatypes import AtomError
from atom_repro.training.network import training_network, training_optimiser
from atom_repro.training.resume import TrainingState
from atom_repro.training.sharding import full_state, restore_state
from atom_repro.training.trainer import _require_converging


class Network:
    """As a `CaptioningModel`, of a small model's modules."""

    def __init__(self, model, tokenizer, seed):
        torch.manual_seed(seed)
        self.model, self.tokenizer = model, tokenizer
        self.encoder, self.decoder = model.make_encoder(), model.make_decoder()

    def parameters(self):
        return [*self.encoder.parameters(), *self.decoder.parameters()]


@pytest.fixture
def network(model, tokenizer):
    return lambda seed: Network(model, tokenizer, seed)


def begun(folder, network, key="a"):
    state = TrainingState(Checkpoint(folder), key, SimpleNamespace(network=network, optimiser=None))
    assert state.begin(fresh=False, wait=lambda: None) == 0
    return state


def validated(state, network, cider, step=4):
    state.record_validation(step, cider, network, network.tokenizer, since=0.0)
    return state.best["weights"]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 1e5])
def test_a_training_that_diverges_stops_at_that_step(loss):
    _require_converging(0, {"caption_loss": 12.0, "text_loss": 0.1})
    with pytest.raises(AtomError, match=r"^step 2: the caption loss is .*lower train\.learning"):
        _require_converging(1, {"text_loss": 0.1, "caption_loss": loss})


def test_weights_that_are_not_finite_replace_nothing(tmp_path, network):
    good = network(0)
    state = begun(tmp_path / "c", good)
    weights = validated(state, good, 3.0)
    with torch.no_grad():
        good.parameters()[-1].fill_(float("nan"))
    with pytest.raises(AtomError, match="step 8: some weights are not finite"):
        validated(state, good, 50.0, step=8)
    assert state.checkpoint.weights() == weights
    state.close()


def test_another_training_has_to_wait_for_the_folder(tmp_path, network):
    state = begun(tmp_path / "c", network(0))
    with pytest.raises(AtomError, match=r"another run \(process \d+\) uses .*c; wait for it"):
        begun(tmp_path / "c", network(0), key="b")
    state.close()
    begun(tmp_path / "c", network(0), key="b").close()


def test_the_modules_of_an_earlier_training_are_kept(tmp_path, network):
    state = begun(tmp_path / "c", network(0))
    first = validated(state, network(0), 3.0)
    better = validated(state, network(1), 5.0, step=8)
    assert state.moved == ""
    state.close()
    state = begun(tmp_path / "c", network(2), key="b")
    last = validated(state, network(2), 1.0)
    assert state.checkpoint.weights() == last
    assert Checkpoint(tmp_path / "c/earlier").weights() == better
    assert len({first, better, last}) == 3
    assert state.moved.endswith("c/earlier")
    state.close()


def test_modules_of_two_trainings_are_no_checkpoint(tmp_path, network):
    for name, seed in (("a", 0), ("b", 1)):
        state = begun(tmp_path / name, network(seed))
        validated(state, network(seed), 1.0)
        state.close()
    mixed = Checkpoint(tmp_path / "a")
    label = mixed.weights()
    assert mixed.has_weights(label)
    mixed.decoder().rename(tmp_path / "old")
    Checkpoint(tmp_path / "b").decoder().rename(mixed.decoder())
    assert not mixed.has_weights(label)
    with pytest.raises(AtomError, match=r"a/fp32: the encoder is of trained:\w+ and the decoder"):
        mixed.weights()


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_run_saved_after_steps_of_images_goes_on_as_if_it_had_not_been(name):
    """Those steps reach the stem alone; the rest has no optimiser state yet."""
    cfg = compose("finetune", ["scale=smoke", "model=tiny_mplug2plus", f"train.optimiser={name}"])
    model = build(cfg.model)
    words = SimpleNamespace(tokenizer=Words(), rarity=[1.0] * model.decoder.vocabulary)
    torch.manual_seed(0)
    size = model.encoder.image_size
    frames = torch.randint(0, 255, (2, model.encoder.frames, 3, size, size)).byte()
    captions = torch.randint(4, 200, (2, 2, 7))
    of_images = {"images": frames[:, 0], "image_captions": captions}
    of_captions = {"frames": frames, "captions": captions, "caption_weight": 1.0}

    def steps(network, optimiser, batch, count):
        for _ in range(count):
            network(batch)[0].backward()
            optimiser.step()
            optimiser.zero_grad()

    whole, again = (training_network(model, words, cfg.train) for _ in range(2))
    optimiser, resumed = (training_optimiser(n, cfg.train) for n in (whole, again))
    steps(whole, optimiser, of_images, 2)
    saved = copy.deepcopy(full_state(whole, optimiser))
    restore_state(again, resumed, saved)
    for network, one in ((whole, optimiser), (again, resumed)):
        steps(network, one, of_captions, 2)
    for (key, expected), got in zip(
        whole.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(expected, got), key
