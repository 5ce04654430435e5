"""A network that is shared out computes as a whole one and is saved whole, whatever the family.

One process is enough for that: its share is everything, behind the same hooks. That several add
up to one is shown in `test_finetune`.
"""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from words import Words

from atom_repro import config
from atom_repro.config.composition import compose
from atom_repro.datatypes import AtomError
from atom_repro.training.network import training_network, training_optimiser
from atom_repro.training.processes import refuse_accelerate_sharding
from atom_repro.training.sharding import (
    FullNetwork,
    full_state,
    process_mesh,
    restore_state,
    shard,
)

SMALL_SMOLVLM2 = (
    "model=smolvlm2_256m", "model.encoder.image_size=32", "model.encoder.patch_size=8",
    "model.encoder.width=32", "model.encoder.layers=2", "model.encoder.heads=2",
    "model.encoder.mlp_width=64", "model.encoder.frames=2", "model.encoder.shuffle=2",
    "model.decoder.vocabulary=300", "model.decoder.width=32", "model.decoder.layers=2",
    "model.decoder.heads=4", "model.decoder.kv_heads=2", "model.decoder.head_width=8",
    "model.decoder.mlp_width=64",
)  # fmt: skip


@pytest.fixture
def mesh():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.fixture(
    params=[("model=tiny_mplug2plus",), ("model=tiny_mplug2",), SMALL_SMOLVLM2],
    ids=["mplug2plus", "mplug2", "smolvlm2"],
)
def setting(request):
    """Something that makes a network, its settings, and a micro-batch."""
    recomputed = "train.gradient_checkpointing=true"
    adamw = ("train.optimiser=adamw", "train.learning_rate=1e-2")
    cfg = compose("finetune", [*request.param, *adamw, recomputed])
    model = config.build(cfg.model)
    data = SimpleNamespace(tokenizer=Words(), rarity=[1.0] * model.decoder.vocabulary)
    size = model.encoder.image_size
    torch.manual_seed(0)
    part = {
        "frames": torch.randint(0, 255, (2, model.encoder.frames, 3, size, size)).byte(),
        "captions": torch.randint(4, 200, (2, 2, 7)),
        "caption_weight": 1.0,
    }
    return lambda: training_network(model, data, cfg.train), cfg.train, part


def steps(network, optimiser, part, count):
    losses = []
    for _ in range(count):
        loss, _ = network(part)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return losses


def test_it_learns_as_a_whole_one_and_goes_on_from_what_was_saved(setting, mesh):
    make, settings, part = setting
    whole, shared, again = make(), make(), make()
    shared.load_state_dict(whole.state_dict())
    shard(shared, mesh)
    shard(again, mesh)
    expected = steps(whole, training_optimiser(whole, settings), part, 3)
    optimiser = training_optimiser(shared, settings)
    assert steps(shared, optimiser, part, 2) == pytest.approx(expected[:2], rel=1e-5)
    assert expected[1] < expected[0]

    state = full_state(shared, optimiser)
    assert {n: w.shape for n, w in state["network"].items()} == {
        n: w.shape for n, w in whole.state_dict().items()
    }
    resumed = training_optimiser(again, settings)
    restore_state(again, resumed, state)
    assert steps(again, resumed, part, 1) == pytest.approx(expected[2:], rel=1e-4)

    copy = FullNetwork(again, make).gathered()
    for name, weight in full_state(again, resumed)["network"].items():
        assert torch.equal(copy.state_dict()[name], weight), name
    assert FullNetwork(whole, make).gathered() is whole
    assert FullNetwork(again, None).gathered() is None


def test_one_process_has_nobody_to_share_with():
    with pytest.raises(AtomError, match=r"train\.shard=true .*torchrun --nproc_per_node 2"):
        process_mesh(torch.device("cpu"), 1)


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_another_way_to_share_out_is_refused(kind):
    refuse_accelerate_sharding(DistributedType.MULTI_GPU)
    with pytest.raises(AtomError, match=r"cannot be launched under .*train\.shard=true"):
        refuse_accelerate_sharding(kind)
