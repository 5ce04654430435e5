"""Beam search against an independent one: a clip at a time, no cache, plain lists."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import small_model

from atom_repro.datatypes import AtomError
from atom_repro.models.generation import (
    ContinuousBatch,
    GenerationSettings,
    generate,
    largest,
    score_continuations,
)
from atom_repro.models.text_decoder import TextDecoder

END = 2


def plain_beam_search(decoder, prefix, settings):
    """Every hypothesis is re-run from the start at every step."""
    running, finished = [((), 0.0)], []
    for length in range(1, settings.max_new_tokens + 1):
        candidates = []
        for tokens, total in running:
            embeds = prefix
            if tokens:
                embeds = torch.cat((prefix, decoder.embed(torch.tensor([tokens]))), dim=1)
            log_probs = decoder.lm_head(decoder(embeds)[0, -1]).log_softmax(-1).tolist()
            if settings.forbid_end:
                log_probs[END] = -math.inf
            candidates += [(total + p, (*tokens, t)) for t, p in enumerate(log_probs)]
        candidates.sort(key=lambda c: -c[0])
        running = []
        for rank, (total, tokens) in enumerate(candidates[: 2 * settings.beams]):
            if tokens[-1] == END:
                if rank < settings.beams:
                    finished.append((total / length**settings.length_penalty, tokens[:-1]))
            elif len(running) < settings.beams:
                running.append((tokens, total))
        if length == settings.max_new_tokens:
            finished += [(s / length**settings.length_penalty, t) for t, s in running]
        finished = sorted(finished, key=lambda f: -f[0])[: settings.beams]
        best_running = running[0][1] / length**settings.length_penalty
        if len(finished) == settings.beams and finished[-1][0] >= best_running:
            break
    return finished[0]


def random_decoder(seed, end_bias):
    torch.manual_seed(seed)
    decoder = TextDecoder(small_model(decoder={"vocabulary": 40}).decoder).eval()
    for parameter in decoder.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    # Half of the searches should end early, half run to the limit.
    with torch.no_grad():
        decoder.model.embed_tokens.weight[END] *= end_bias
    return decoder


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_equals_the_plain_search_batched_and_apart(seed, beams, penalty):
    decoder = random_decoder(seed, end_bias=1.0 + seed)
    prefix = torch.randn(3, 5, 48)
    settings = GenerationSettings(beams=beams, max_new_tokens=8, length_penalty=penalty)
    batched = generate(decoder, decoder.prefill(prefix), end_id=END, settings=settings)
    for clip in range(3):
        score, tokens = plain_beam_search(decoder, prefix[clip : clip + 1], settings)
        apart = generate(
            decoder, decoder.prefill(prefix[clip : clip + 1]), end_id=END, settings=settings
        )[0]
        assert batched[clip].token_ids == apart.token_ids == tokens
        assert batched[clip].score == pytest.approx(score, abs=1e-4)


@torch.no_grad()
def test_some_searches_end_early_and_some_do_not():
    settings = GenerationSettings(beams=4, max_new_tokens=8)
    lengths = set()
    for seed in range(6):
        decoder = random_decoder(seed, 1.0 + seed)
        start = decoder.prefill(torch.randn(3, 5, 48))
        made = generate(decoder, start, end_id=END, settings=settings)
        lengths |= {len(g.token_ids) for g in made}
    assert 8 in lengths
    assert min(lengths) < 8


@torch.no_grad()
def test_forbidden_end_fixes_the_length():
    settings = GenerationSettings(beams=2, max_new_tokens=7, forbid_end=True)
    decoder = random_decoder(5, 6.0)
    start = decoder.prefill(torch.randn(2, 5, 48))
    made = generate(decoder, start, end_id=END, settings=settings)
    assert [len(g.token_ids) for g in made] == [7, 7]
    assert all(END not in g.token_ids for g in made)


@torch.no_grad()
def test_fixed_steps_are_as_many_for_every_text_and_change_none(monkeypatch):
    settings = GenerationSettings(beams=4, max_new_tokens=8)
    taken = []
    step = TextDecoder.step
    monkeypatch.setattr(
        TextDecoder, "step", lambda self, *arguments: taken.append(1) or step(self, *arguments)
    )
    decoder, prefix = random_decoder(5, 20.0), torch.randn(3, 5, 48)
    made, steps = [], []
    for fixed in (False, True):
        which = replace(settings, fixed_steps=fixed)
        made.append(generate(decoder, decoder.prefill(prefix), end_id=END, settings=which))
        steps.append(len(taken))
        taken.clear()
    assert made[0] == made[1]
    assert steps[0] < steps[1] == 7
    with pytest.raises(AtomError, match=r"fixed_steps=true needs runtime\.decode_batch=1"):
        ContinuousBatch(decoder, end_id=END, settings=replace(settings, fixed_steps=True))


def test_impossible_settings_are_named():
    with pytest.raises(AtomError, match=r"generation\.beams=0"):
        GenerationSettings(beams=0)


def token_log_probs(decoder, prefix, ids):
    """Of each token behind a prefix (1, P, E), by one pass over the whole sequence."""
    embeds = torch.cat((prefix, decoder.embed(torch.tensor([ids]))), dim=1)
    rows = decoder.lm_head(decoder(embeds)[0, prefix.shape[1] - 1 : -1]).log_softmax(-1)
    return [float(row[token]) for row, token in zip(rows, ids, strict=True)]


@pytest.mark.parametrize("beams", [1, 3])
@torch.no_grad()
def test_a_generated_text_has_the_log_probability_of_each_token(beams):
    ended = 0
    for seed in range(6):
        decoder = random_decoder(seed, end_bias=1.0 + seed)
        prefix = torch.randn(2, 5, 48)
        settings = GenerationSettings(beams=beams, max_new_tokens=8)
        for clip, made in enumerate(
            generate(decoder, decoder.prefill(prefix), end_id=END, settings=settings)
        ):
            has_end = len(made.token_log_probs) > len(made.token_ids)
            ended += has_end
            ids = [*made.token_ids, END] if has_end else list(made.token_ids)
            expected = token_log_probs(decoder, prefix[clip : clip + 1], ids)
            assert made.token_log_probs == pytest.approx(expected, abs=1e-4)
            assert made.log_prob == pytest.approx(sum(expected), abs=1e-4)
    assert 0 < ended < 12


@torch.no_grad()
def test_continuations_are_scored_as_whole_sequences_are():
    decoder = random_decoder(1, end_bias=1.0)
    prefix = torch.randn(2, 5, 48)
    continuations = [[7], [8, 9, 10], [11, 7]]
    scored = score_continuations(decoder, decoder.prefill(prefix), continuations)
    for clip, of_clip in enumerate(scored):
        for ids, log_probs in zip(continuations, of_clip, strict=True):
            expected = token_log_probs(decoder, prefix[clip : clip + 1], ids)
            assert log_probs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("size", [100, 4096, 5000, 128256])
def test_the_largest_of_a_vocabulary_are_those_of_topk(size):
    x = torch.randn(2, 3, size, generator=torch.Generator().manual_seed(size))
    x[0, 0, -1] = 9.0  # in the rest behind the last whole chunk
    x[1, 2, : size // 2] = -torch.inf
    values, index = largest(x, 8)
    expected = x.topk(8, dim=-1)
    assert torch.equal(values, expected.values)
    assert torch.equal(index, expected.indices)
