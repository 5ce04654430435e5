"""Greedy and beam search, and scores of given texts, over any decoder with `start` and `step`.

Beam search as commonly implemented: the score of a finished sequence is its log-probability
divided by length ** length_penalty, end-of-sequence included; a clip is done when it has K
finished sequences and no running beam can still beat the worst of them. Clips that are done are
dropped from the batch.

`finished=stay` is mPLUG-2's released search: of the K best continuations, those that end are
stored and also stay among the beams, extended past their end, and a clip is done when its best
beam ends. It scores by `length_rule=gnmt`.

Greedy is beam search with one beam. No state outlives a call.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atom_repro.datatypes import AtomError
from atom_repro.models.vlm import Cache, DecodingNetwork


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """Beam search settings. `max_new_tokens` counts end-of-sequence; `forbid_end` makes every
    output exactly that long, which random weights at `systems` scale need. End-of-sequence is not
    allowed before `min_new_tokens` other tokens. `length_rule` is `power`, which divides the
    log-probability by length ** length_penalty, or `gnmt`, by ((5 + length) / 6) **
    length_penalty. `finished` says whether beams that end `leave` the search or `stay` in it (see
    the module). With `fixed_steps` the decoder steps on to `max_new_tokens` behind the end, as a
    traced loop does (paper, Appendix D); the texts are the same."""

    beams: int = 4
    max_new_tokens: int = 23
    length_penalty: float = 1.0
    forbid_end: bool = False
    min_new_tokens: int = 0
    length_rule: str = "power"
    finished: str = "leave"
    fixed_steps: bool = False

    def __post_init__(self) -> None:
        for key, choices in (("length_rule", ("power", "gnmt")), ("finished", ("leave", "stay"))):
            if getattr(self, key) not in choices:
                raise AtomError(
                    f"generation.{key}={getattr(self, key)} is neither {' nor '.join(choices)}"
                )
        if self.min_new_tokens < 0:
            raise AtomError(f"generation.min_new_tokens={self.min_new_tokens} is below 0")
        if self.beams < 1 or self.max_new_tokens < 1:
            raise AtomError(
                f"generation.beams={self.beams} and generation.max_new_tokens="
                f"{self.max_new_tokens} must both be at least 1"
            )

    def score(self, total: float, length: int) -> float:
        """The score of a sequence of `length` tokens, end-of-sequence included."""
        base = (5 + length) / 6 if self.length_rule == "gnmt" else length
        return total / base**self.length_penalty


@dataclass(frozen=True)
class Generated:
    """A generated sequence.

    Attributes:
        token_ids: without end-of-sequence.
        log_prob: in total, that of end-of-sequence included.
        score: by which the search ranks it.
        token_log_probs: of each token, and of end-of-sequence where the sequence has one.
        text: of the tokens, once a decoder with a tokenizer has filled it in.
    """

    token_ids: tuple[int, ...]
    log_prob: float
    score: float
    token_log_probs: tuple[float, ...] = ()
    text: str = ""


_CHUNK = 128


def largest(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`topk` of the last dimension. Of a large vocabulary, only chunks with the largest maxima are
    searched, which hold the same values."""
    size = x.shape[-1]
    chunks = size // _CHUNK
    if chunks < 8 * count:
        values, index = x.topk(count, dim=-1)
        return values, index
    whole = chunks * _CHUNK
    by_chunk = x[..., :whole].unflatten(-1, (chunks, _CHUNK))
    chunk = by_chunk.amax(dim=-1).topk(count, dim=-1).indices
    among = by_chunk.gather(-2, chunk[..., None].expand(*chunk.shape, _CHUNK)).flatten(-2)
    places = (chunk[..., None] * _CHUNK + torch.arange(_CHUNK, device=x.device)).flatten(-2)
    if whole < size:
        among = torch.cat((among, x[..., whole:]), dim=-1)
        rest = torch.arange(whole, size, device=x.device).expand(*x.shape[:-1], -1)
        places = torch.cat((places, rest), dim=-1)
    values, index = among.topk(count, dim=-1)
    return values, places.gather(-1, index)


@torch.inference_mode()
def generate(
    decoder: DecodingNetwork,
    start: tuple[Tensor, Cache],
    *,
    end_id: int,
    settings: GenerationSettings,
) -> list[Generated]:
    """Generate the best continuation of each prompt in the cache.

    Args:
        start: the result of `decoder.start`: logits (B, V) and the cache, which is modified.
        end_id: the end-of-sequence token.

    Returns:
        One result per batch row, in order.
    """
    logits, cache = start
    search = _BeamSearch(logits.shape[0], end_id, settings)
    cache.open(settings.beams, settings.max_new_tokens)
    # All beams start equal: expand the first token from beam 0 alone.
    logits = logits[:, None].expand(-1, settings.beams, -1)
    while True:
        parent, tokens = search.advance(logits)
        remaining = search.drop_finished()
        if not search.rows:
            if settings.fixed_steps:
                for _ in range(search.length, settings.max_new_tokens):
                    decoder.step(tokens, cache)
            return search.results()
        cache.reorder(parent)
        if remaining is not None:
            cache.keep(remaining)
            tokens = tokens[remaining]
        logits = decoder.step(tokens, cache)


@torch.inference_mode()
def score_continuations(
    decoder: DecodingNetwork, start: tuple[Tensor, Cache], continuations: Sequence[Sequence[int]]
) -> list[list[tuple[float, ...]]]:
    """Log-probability of each token of given continuations of each prompt in the cache.

    The continuations are beams that share the prompt, so it is read once.

    Args:
        start: the result of `decoder.start`: logits (B, V) and the cache, which is modified.
        continuations: token ids, at least one each.

    Returns:
        B lists, each with the log-probabilities of every continuation.
    """
    logits, cache = start
    longest = max(map(len, continuations))
    padded = torch.tensor(
        [[*ids, *[0] * (longest - len(ids))] for ids in continuations], device=logits.device
    )
    ids_BKL = padded.expand(logits.shape[0], -1, -1)
    cache.open(len(continuations), longest)
    logits_BKV = logits[:, None].expand(-1, len(continuations), -1)
    log_probs = []
    for position in range(longest):
        if position:
            logits_BKV = decoder.step(ids_BKL[:, :, position - 1], cache)
        chosen = ids_BKL[:, :, position, None]
        log_probs.append(logits_BKV.float().log_softmax(dim=-1).gather(2, chosen)[:, :, 0])
    return [
        [tuple(row[: len(ids)]) for row, ids in zip(clip, continuations, strict=True)]
        for clip in torch.stack(log_probs, dim=2).tolist()
    ]


class ContinuousBatch:
    """Searches of several clips that share decoding steps; clips join and leave at any time.

    A step reads all weights of the decoder however many rows it has, so up to the point where
    arithmetic takes longer than that, the rows of further clips are free. Each clip's result is
    that of a search of its own.

    Args:
        decoder: whose cache can `join` another.

    Raises:
        AtomError: with `fixed_steps`, which ends no clip before the others.
    """

    def __init__(
        self, decoder: DecodingNetwork, *, end_id: int, settings: GenerationSettings
    ) -> None:
        if settings.fixed_steps:
            raise AtomError("generation.fixed_steps=true needs runtime.decode_batch=1")
        self._decoder, self._end_id, self._settings = decoder, end_id, settings
        self._searches: dict[int, _BeamSearch] = {}  # by the caller's number, in the cache's order
        self._tokens: list[Tensor] = []  # that the next step appends, (1, K) of each clip
        self._cache: Any = None

    def __len__(self) -> int:
        return len(self._searches)

    @torch.inference_mode()
    def add(self, number: int, start: tuple[Tensor, Any]) -> Generated | None:
        """Let a clip join.

        Args:
            number: that names the clip in `step`; not one that is running.
            start: the result of `decoder.start` for this clip alone.

        Returns:
            The result if the clip is done with its first token, and has not joined.
        """
        logits, cache = start
        search = _BeamSearch(1, self._end_id, self._settings)
        cache.open(self._settings.beams, self._settings.max_new_tokens)
        _, tokens = search.advance(logits[:, None].expand(-1, self._settings.beams, -1))
        search.drop_finished()
        if not search.rows:
            return search.results()[0]
        if self._searches:
            self._cache.join(cache)
        else:
            self._cache = cache
        self._searches[number] = search
        self._tokens.append(tokens)
        return None

    @torch.inference_mode()
    def step(self) -> dict[int, Generated]:
        """Append one token to every beam of every clip; the results of clips that are done."""
        logits = self._decoder.step(torch.cat(self._tokens), self._cache)
        done, going_on, parents = {}, [], []
        self._tokens = []
        for row, (number, search) in enumerate(list(self._searches.items())):
            parent, tokens = search.advance(logits[row : row + 1])
            search.drop_finished()
            parents.append(parent)
            if search.rows:
                going_on.append(row)
                self._tokens.append(tokens)
            else:
                done[number] = search.results()[0]
                del self._searches[number]
        self._cache.reorder(torch.cat(parents))
        if done:
            self._cache.keep(torch.tensor(going_on, dtype=torch.long))
        return done


@dataclass(frozen=True)
class _Hypothesis:
    """Tokens of one beam, end-of-sequence included, and the log-probability of each."""

    token_ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()

    def extended(self, token: int, log_prob: float) -> "_Hypothesis":
        return _Hypothesis((*self.token_ids, token), (*self.log_probs, log_prob))


class _BeamSearch:
    """Beam search state of one batch: running beams as tensors, finished ones as lists."""

    def __init__(self, clips: int, end_id: int, settings: GenerationSettings) -> None:
        self.settings, self.end_id = settings, end_id
        self.rows = list(range(clips))  # index of the clip in each batch row
        self.finished: list[list[Generated]] = [[] for _ in range(clips)]
        self.totals = torch.full((clips, settings.beams), -torch.inf)
        self.totals[:, 0] = 0.0
        self.history: list[list[_Hypothesis]] = [
            [_Hypothesis()] * settings.beams for _ in range(clips)
        ]
        self.length = 0

    def advance(self, logits_BKV: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the next token of every beam: (parent beam, token), each (B, K)."""
        K, V = self.settings.beams, logits_BKV.shape[-1]
        logits = logits_BKV.float()
        normaliser = logits.logsumexp(dim=-1, keepdim=True)
        if self.settings.forbid_end or self.length < self.settings.min_new_tokens:
            logits = logits.clone()
            logits[..., self.end_id] = -torch.inf
        stay = self.settings.finished == "stay"
        # 2K candidates: even if K of them end, K beams run on. The best of all beams are among the
        # best of each, and only those are normalised.
        candidates = min(K if stay else 2 * K, K * V)
        top, token = largest(logits, min(candidates, V))
        log_probs = (top - normaliser).flatten(1)
        totals = (self.totals.to(top.device)[:, :, None] + log_probs.view(top.shape)).flatten(1)
        best, place = totals.topk(candidates, dim=1)
        beam = place // top.shape[-1]
        index_rows = (beam * V + token.flatten(1).gather(1, place)).tolist()
        # One transfer for both.
        best_rows, step_rows = torch.stack((best, log_probs.gather(1, place))).tolist()
        self.length += 1
        last = self.length == self.settings.max_new_tokens
        parents, tokens, running = [], [], []
        for row, clip in enumerate(self.rows):
            before = self.history[row]
            chosen: list[tuple[int, _Hypothesis, float]] = []
            for rank, (total, flat) in enumerate(zip(best_rows[row], index_rows[row], strict=True)):
                beam, token = divmod(flat, V)
                ends = token == self.end_id and rank < K
                goes_on = (stay or token != self.end_id) and len(chosen) < K
                if not (ends or goes_on):
                    continue
                extended = before[beam].extended(token, step_rows[row][rank])
                if ends:
                    self._finish(clip, extended, total)
                if goes_on:
                    chosen.append((beam, extended, total))
            while len(chosen) < K:  # a vocabulary smaller than 2K candidates
                never = -float("inf")
                chosen.append((0, before[0].extended(self.end_id, never), never))
            self.history[row] = [hypothesis for _, hypothesis, _ in chosen]
            if last:
                for _, hypothesis, total in chosen:
                    if hypothesis.token_ids[-1] != self.end_id:
                        self._finish(clip, hypothesis, total)
            parents.append([beam for beam, _, _ in chosen])
            tokens.append([hypothesis.token_ids[-1] for _, hypothesis, _ in chosen])
            running.append([total for _, _, total in chosen])
        self.totals = torch.tensor(running)
        device = logits_BKV.device
        return torch.tensor(parents, device=device), torch.tensor(tokens, device=device)

    def _finish(self, clip: int, hypothesis: "_Hypothesis", total: float) -> None:
        if total == -float("inf"):
            return
        ids = hypothesis.token_ids
        ids = ids[:-1] if ids[-1] == self.end_id else ids
        score = self.settings.score(total, self.length)
        pool = self.finished[clip]
        pool.append(Generated(ids, total, score, hypothesis.log_probs))
        pool.sort(key=lambda g: -g.score)
        del pool[self.settings.beams :]

    def _done(self, row: int) -> bool:
        if self.length == self.settings.max_new_tokens:
            return True
        if self.settings.finished == "stay":
            return self.history[row][0].token_ids[-1] == self.end_id
        pool = self.finished[self.rows[row]]
        if len(pool) < self.settings.beams:
            return False
        reachable = self.settings.score(float(self.totals[row].max()), self.length)
        return bool(pool[-1].score >= reachable)

    def drop_finished(self) -> Tensor | None:
        """Drop the rows that are done. Return the remaining rows, or None if none was dropped."""
        remaining = [row for row in range(len(self.rows)) if not self._done(row)]
        if len(remaining) == len(self.rows):
            return None
        self.rows = [self.rows[row] for row in remaining]
        self.history = [self.history[row] for row in remaining]
        self.totals = self.totals[remaining]
        return torch.tensor(remaining, dtype=torch.long)

    def results(self) -> list[Generated]:
        return [pool[0] for pool in self.finished]
