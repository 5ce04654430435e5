"""The loss of padded rows is that of each row alone."""

import pytest
import torch
import torch.nn.functional as F

from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.training.text_loss import text_loss

LENGTHS = [9, 5, 7]
TARGETS = [(4, 9), (3, 5), (2, 7)]


@pytest.fixture
def decoder(model):
    torch.manual_seed(0)
    decoder = model.make_decoder()
    for parameter in decoder.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return decoder


@pytest.fixture
def batch():
    ids = torch.randint(3, 300, (3, 9), generator=torch.Generator().manual_seed(1))
    target = torch.zeros(3, 9, dtype=torch.bool)
    for row, (length, (start, end)) in enumerate(zip(LENGTHS, TARGETS, strict=True)):
        ids[row, length:] = 2
        target[row, start:end] = True
    return ids, target


def alone(decoder, visual, ids, target):
    """Cross-entropy of every target token, row by row, without padding."""
    losses = []
    for row, length in enumerate(LENGTHS):
        tokens = ids[row, :length]
        parts = [decoder.embed(tokens[:1])]
        if visual is not None:
            parts.append(visual.tokens[row])
        parts.append(decoder.embed(tokens[1:]))
        logits = decoder.lm_head(decoder(torch.cat(parts)[None]))[0]
        at = 0 if visual is None else visual.count
        for i in range(1, length):
            if target[row, i]:
                losses.append(F.cross_entropy(logits[at + i - 1], tokens[i]))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("tokens", [None, 4])
def test_padding_changes_nothing(decoder, batch, tokens, training):
    ids, target = batch
    width = decoder.config.width
    visual = None if tokens is None else VisualTokens(torch.randn(3, tokens, width))
    decoder.train(training)
    got = text_loss(decoder, visual, ids, target)
    assert got.item() == pytest.approx(alone(decoder, visual, ids, target).item(), rel=1e-5)


def test_what_is_padded_with_does_not_matter(decoder, batch):
    ids, target = batch
    other = ids.clone()
    other[ids == 2] = 77
    assert text_loss(decoder, None, ids, target) == text_loss(decoder, None, other, target)


def test_visual_tokens_are_learned_from(decoder, batch):
    ids, target = batch
    visual = torch.randn(3, 4, decoder.config.width, requires_grad=True)
    text_loss(decoder, VisualTokens(visual), ids, target).backward()
    assert visual.grad.abs().sum(dim=(1, 2)).min() > 0
