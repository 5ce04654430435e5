"""Muon: orthogonal steps for hidden matrices, AdamW's for the rest, the same by many processes."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from atom_repro.training.muon import Muon, hidden_matrices, orthogonal

WORDS = 11


def network():
    torch.manual_seed(0)
    made = nn.ModuleDict(
        {
            "embedding": nn.Embedding(WORDS, 8),
            "stem": nn.Conv2d(3, 8, 3),
            "depthwise": nn.Conv2d(8, 8, 3, groups=8),
            "wide": nn.Linear(8, 24),
            "norm": nn.LayerNorm(24),
            "tall": nn.Linear(24, 8, bias=False),
            "head": nn.Linear(8, WORDS, bias=False),
        }
    )
    made["head"].weight = made["embedding"].weight
    return made


def optimiser(made, *, rate=0.1):
    chosen = hidden_matrices(made, WORDS)
    groups = [
        {"params": [p for p in made.parameters() if (id(p) in chosen) is kind], "lr": rate,
         "weight_decay": 0.01, "orthogonal": kind}
        for kind in (False, True)
    ]  # fmt: skip
    return Muon(groups, betas=(0.9, 0.98))


def give_gradients(made, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(16, 16), (16, 64), (64, 16)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_a_step_is_orthogonal_of_the_size_of_adamws(shape, scale):
    torch.manual_seed(0)
    step = orthogonal(torch.randn(shape) * scale)
    values = torch.linalg.svdvals(step) / (0.2 * max(shape) ** 0.5)
    assert values.min() > 0.5
    assert values.max() < 1.15
    assert step.square().mean().sqrt() == pytest.approx(0.2, rel=0.2)


def test_rare_directions_move_as_far_as_common_ones():
    common, rare = torch.eye(4)[:1], torch.eye(4)[1:2]
    step = orthogonal(common.T @ common + 0.05 * rare.T @ rare)
    assert step[1, 1] > 0.7 * step[0, 0] > 0


def test_no_gradient_gives_no_step():
    assert not orthogonal(torch.zeros(4, 8)).any()
    made = network()
    before = [p.detach().clone() for p in made.parameters()]
    optimiser(made).step()
    assert all(map(torch.equal, before, made.parameters()))


def test_hidden_matrices_alone_are_orthogonal():
    made = network()
    chosen = {name for name, p in made.named_parameters() if id(p) in hidden_matrices(made, WORDS)}
    assert chosen == {"stem.weight", "wide.weight", "tall.weight"}


def test_the_rest_is_adamw():
    ours, reference = network(), network()
    mine = optimiser(ours)
    rest = [p for p in reference.parameters() if id(p) not in hidden_matrices(reference, WORDS)]
    theirs = torch.optim.AdamW(rest, lr=0.1, weight_decay=0.01, betas=(0.9, 0.98))
    for step in range(3):
        give_gradients(ours, step)
        give_gradients(reference, step)
        mine.step()
        theirs.step()
    assert torch.equal(ours["embedding"].weight, reference["embedding"].weight)
    assert torch.equal(ours["norm"].bias, reference["norm"].bias)
    assert not torch.equal(ours["wide"].weight, reference["wide"].weight)


def test_a_saved_state_goes_on_as_if_it_had_not_been_saved():
    whole, resumed = network(), network()
    first, second = optimiser(whole), optimiser(resumed)
    for step in range(2):
        for made, one in ((whole, first), (resumed, second)):
            give_gradients(made, step)
            one.step()
    third = optimiser(resumed)
    third.load_state_dict(second.state_dict())
    for made, one in ((whole, first), (resumed, third)):
        give_gradients(made, 2)
        one.step()
    assert all(map(torch.equal, whole.parameters(), resumed.parameters()))


def _step_in_process(rank, file, results):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=3)
    made = network()
    give_gradients(made, 0)
    optimiser(made).step()
    results.put((rank, [p.detach().numpy() for p in made.parameters()]))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_share_the_work_and_have_the_same_weights(tmp_path):
    alone = network()
    give_gradients(alone, 0)
    optimiser(alone).step()
    results = mp.get_context("spawn").Queue()
    mp.spawn(_step_in_process, (tmp_path / "meeting", results), nprocs=3, join=False)
    for _ in range(3):
        _, weights = results.get(timeout=120)
        for expected, got in zip(alone.parameters(), weights, strict=True):
            assert torch.equal(expected, torch.from_numpy(got))
