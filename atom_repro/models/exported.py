"""Decoders whose layers run outside PyTorch: pure functions to export, and the host's part around
them.

An exporter turns each `Method` of a network into a function of an engine's file. What is left to
the host is here: embedding rows, masks, the KV cache and its reordering. The prefix of a clip is an
input that all its beams share, and is never copied; keys and values of new tokens are outputs that
the host writes into its cache.

Shapes: B clips, K beams, P prefix positions, G allocated generated positions, J key/value heads,
C channels per head, E width, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.models.visual_tokens import VisualTokens

# The largest sizes of one call. More clips or beams than these are split over several calls: a step
# of 32 rows is bound by arithmetic, so it gains nothing from more.
MAX_CLIPS, MAX_BEAMS = 8, 4
MAX_PREFIX, MAX_NEW_TOKENS = 1024, 256
NEVER = -1e9  # added to the score of a position that must not be seen; finite, so no NaN arises

MethodCall = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class Forms:
    """Optimisations of exported graphs (paper, Appendix D), to be left out where one is measured.

    Attributes:
        fused: norms and rotary embedding are written as the products that a backend takes, and it
            takes all neighbouring operators as one; else PyTorch's operators, one by one.
        hoisted: what only positions decide (rotary rows, the causal mask) is made once outside, and
            is an input; else each call computes it.
    """

    fused: bool = True
    hoisted: bool = True


FORMS = Forms()


@dataclass(frozen=True)
class Method:
    """A pure function of tensors to export.

    Attributes:
        module: its `forward` takes and returns tensors.
        example: arguments to trace it with; no dynamic dimension of them may be 0 or 1.
        dynamic: for each argument, its dynamic dimensions and their largest sizes.
    """

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    dynamic: tuple[Mapping[int, int], ...]


class EncoderForward(nn.Module):
    """An encoder that returns its tokens and features as plain tensors."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, frames_BTCHW: Tensor) -> tuple[Tensor, ...]:
        visual = self.encoder(frames_BTCHW)
        return visual.tokens, *visual.features.values()


def encoder_method(encoder: nn.Module, frames_BTCHW: Tensor) -> Method:
    """`forward` of an encoder, for as many clips as the example has."""
    return Method("forward", EncoderForward(encoder), (frames_BTCHW,), ({},))


class Table(Protocol):
    """An embedding table that is read by rows."""

    def __call__(self, ids: Tensor) -> Tensor:
        """Rows (*ids.shape, E) in fp32."""
        ...


@dataclass(frozen=True)
class DecoderExport:
    """How a decoder is exported.

    Attributes:
        methods: `prefill` and `step` of a network, in some forms; by default, all optimised.
        tables: names of the embedding weights that the host reads by rows.
        host: the decoder around exported methods, of its configuration, tables, methods and forms.
    """

    methods: "MakeMethods"
    tables: tuple[str, ...]
    host: "MakeHost"


class MakeMethods(Protocol):
    """Makes the methods of a decoder network.

    Raises:
        AtomError: it has no export of its own, or not in these forms.
    """

    def __call__(self, network: Any, /, forms: Forms = FORMS) -> list[Method]: ...


class MakeHost(Protocol):
    """Makes the host of exported methods."""

    def __call__(
        self,
        config: Any,
        tables: Mapping[str, Table],
        methods: Mapping[str, MethodCall],
        forms: Forms = FORMS,
    ) -> "ExportedDecoder": ...


class ExportedCache:
    """KV cache in the layout of exported steps. Owned by the caller.

    The beams' part is one tensor for all layers, so that a reordering is one operation.

    Attributes:
        shared: for each layer, tensors (B, …) that all beams of a clip read, the first two its keys
            (B, J, C, P) and values (B, J, P, C).
        keys, values: of the beams, (layers, B, K, J, C, G) and (layers, B, K, J, G, C).
        prefix_mask, beam_mask: (B, 1, 1, P) and (B, 1, 1, G), added to attention scores.
        prefix, length: of each clip, how many positions of its prefix and of its beams are filled.
    """

    def __init__(self, shared: list[tuple[Tensor, ...]]) -> None:
        keys = shared[0][0]
        self.shared = shared
        self.keys = self.values = self.beam_mask = keys.new_zeros(0)
        self.prefix_mask = keys.new_zeros(keys.shape[0], 1, 1, keys.shape[3])
        self.prefix = torch.full((keys.shape[0],), keys.shape[3])
        self.length = torch.zeros(keys.shape[0], dtype=torch.long)

    def open(self, beams: int, max_new_tokens: int) -> None:
        """Allocate `max_new_tokens` positions for each of `beams` beams per clip.

        Raises:
            AtomError: more positions than the exported step has.
        """
        if max_new_tokens > MAX_NEW_TOKENS:
            raise AtomError(
                f"generation.max_new_tokens={max_new_tokens} exceeds the {MAX_NEW_TOKENS} of an "
                "exported decoder; lower it, or choose engine=eager"
            )
        B, J, C, _ = self.shared[0][0].shape
        size = (len(self.shared), B, beams, J)
        self.keys = torch.zeros(*size, C, max_new_tokens)
        self.values = torch.zeros(*size, max_new_tokens, C)
        self.beam_mask = torch.full((B, 1, 1, max_new_tokens), NEVER)

    def append(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Write each layer's keys and values (B, K, J, C) of a new position of every beam."""
        clips = torch.arange(len(self.length))
        k, v = torch.stack(tuple(keys)), torch.stack(tuple(values))
        if bool((self.length == self.length[0]).all()):  # a slice is written faster than an index
            position = int(self.length[0])
            self.keys[..., position] = k
            self.values[..., position, :] = v
        else:
            for clip, position in enumerate(self.length.tolist()):
                self.keys[:, clip, ..., position] = k[:, clip]
                self.values[:, clip, ..., position, :] = v[:, clip]
        self.beam_mask[clips, 0, 0, self.length] = 0.0
        self.length += 1

    def reorder(self, parent_BK: Tensor) -> None:
        """Make beam k of clip b a continuation of its beam `parent_BK[b, k]`."""
        B, K = parent_BK.shape
        if torch.equal(parent_BK, torch.arange(K).expand(B, K)):
            return
        flat = (parent_BK + torch.arange(B)[:, None] * K).flatten()

        def moved(x: Tensor) -> Tensor:
            return x.flatten(1, 2).index_select(1, flat).view(x.shape)

        self.keys, self.values = moved(self.keys), moved(self.values)

    def join(self, other: "ExportedCache") -> None:
        """Add the clips of another cache behind these. Both are open for as many beams and tokens;
        the shorter prefix is padded with positions that are masked."""
        P = max(self.prefix_mask.shape[3], other.prefix_mask.shape[3])
        both = [each.padded(P) for each in (self, other)]
        self.shared = [
            tuple(torch.cat(pair) for pair in zip(*layers, strict=True))
            for layers in zip(both[0][1], both[1][1], strict=True)
        ]
        self.keys = torch.cat((self.keys, other.keys), dim=1)
        self.values = torch.cat((self.values, other.values), dim=1)
        self.prefix_mask = torch.cat((both[0][0], both[1][0]))
        self.beam_mask = torch.cat((self.beam_mask, other.beam_mask))
        self.prefix = torch.cat((self.prefix, other.prefix))
        self.length = torch.cat((self.length, other.length))

    def padded(self, positions: int) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """The prefix mask and the shared tensors with so many prefix positions."""
        more = positions - self.prefix_mask.shape[3]
        if not more:
            return self.prefix_mask, self.shared
        mask = F.pad(self.prefix_mask, (0, more), value=NEVER)
        layers: list[tuple[Tensor, ...]] = [
            (F.pad(keys, (0, more)), F.pad(values, (0, 0, 0, more)), *others)
            for keys, values, *others in self.shared
        ]
        return mask, layers

    def keep(self, rows: Tensor) -> None:
        """Keep only the clips at batch indices `rows`."""
        self.shared = [tuple(x[rows] for x in layer) for layer in self.shared]
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.prefix_mask, self.beam_mask = self.prefix_mask[rows], self.beam_mask[rows]
        self.prefix, self.length = self.prefix[rows], self.length[rows]


class ExportedDecoder:
    """A decoder's `start` and `step` over exported methods; what a family adds is its inputs.

    Args:
        methods: `prefill`, of one clip: logits (1, V), then each layer's shared tensors without
            their batch dimension. `step`: logits (B, K, V), then each layer's keys and values
            (B, K, J, C).
        shared_per_layer: how many shared tensors a layer has.
    """

    def __init__(self, methods: Mapping[str, MethodCall], shared_per_layer: int) -> None:
        self._methods = methods
        self._shared_per_layer = shared_per_layer

    def prefill_inputs(
        self, visual: VisualTokens | None, ids: Sequence[int]
    ) -> Sequence[tuple[Tensor, ...]]:
        """Arguments of `prefill` for each clip."""
        raise NotImplementedError

    def token_inputs(self, ids_BK: Tensor, cache: ExportedCache) -> tuple[Tensor, ...]:
        """The first arguments of `step`: new tokens and their positions, batched by clip."""
        raise NotImplementedError

    def start(
        self, visual: VisualTokens | None, ids: Sequence[int]
    ) -> tuple[Tensor, ExportedCache]:
        """Prefill with a prompt: logits of the first token (B, V), and the cache."""
        if len(ids) > MAX_PREFIX:
            raise AtomError(
                f"the prompt has {len(ids)} tokens, an exported decoder takes {MAX_PREFIX}; "
                "shorten it, or choose engine=eager"
            )
        prefill, per_layer = self._methods["prefill"], self._shared_per_layer
        outputs = [prefill(*inputs) for inputs in self.prefill_inputs(visual, ids)]
        shared = [torch.stack(clips) for clips in zip(*(o[1:] for o in outputs), strict=True)]
        layers = [tuple(shared[i : i + per_layer]) for i in range(0, len(shared), per_layer)]
        return torch.cat([o[0] for o in outputs]), ExportedCache(layers)

    def step(self, ids_BK: Tensor, cache: ExportedCache) -> Tensor:
        """Append one token to every beam: logits of the next one (B, K, V)."""
        B, K = ids_BK.shape
        of_clips = self.token_inputs(ids_BK, cache)
        logits, new = [], []
        for b in range(0, B, MAX_CLIPS):
            clips = slice(b, min(b + MAX_CLIPS, B))
            parts = [
                self._call(clips, slice(k, min(k + MAX_BEAMS, K)), of_clips, cache)
                for k in range(0, K, MAX_BEAMS)
            ]
            logits.append(_cat([part[0] for part in parts], dim=1))
            new.append([_cat(list(x), dim=1) for x in zip(*(p[1:] for p in parts), strict=True)])
        kv = [_cat(list(x), dim=0) for x in zip(*new, strict=True)]
        cache.append(kv[::2], kv[1::2])
        return _cat(logits, dim=0)

    def _call(
        self, clips: slice, beams: slice, of_clips: Sequence[Tensor], cache: ExportedCache
    ) -> Sequence[Tensor]:
        """One call of `step` with some of the clips and beams."""
        x, *positions = of_clips
        arguments = [x[clips, beams], *(p[clips] for p in positions)]
        arguments += [cache.prefix_mask[clips], cache.beam_mask[clips]]
        for shared, keys, values in zip(cache.shared, cache.keys, cache.values, strict=True):
            arguments += [t[clips] for t in shared]
            arguments += [keys[clips, beams].flatten(1, 2), values[clips, beams].flatten(1, 2)]
        return self._methods["step"](*(a.contiguous() for a in arguments))


def _cat(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)


def causal_scores(positions: int, repeats: int) -> Tensor:
    """Mask (1, repeats * S, S) to add to scores of `repeats` query heads per key head."""
    return torch.full((positions, positions), NEVER).triu(1).repeat(repeats, 1)[None]


def attend_over_prefix(
    q_BKHC: Tensor,
    new: tuple[Tensor, Tensor],
    masks: tuple[Tensor, Tensor],
    layer: Sequence[Tensor],
) -> Tensor:
    """Attention of one new position per beam to its clip's prefix, its beam and itself, without
    copying keys or values: three-dimensional products only, which mobile backends run as they are.

    Args:
        q_BKHC: scaled queries.
        new: keys and values (B, K, J, C) of the new position.
        masks: of prefix and beams, (B, 1, 1, P) and (B, 1, 1, G).
        layer: prefix keys (B, J, C, P) and values (B, J, P, C), beams' keys (B, K*J, C, G) and
            values (B, K*J, G, C).

    Returns:
        (B, K, H * C).
    """
    k, v = new
    prefix_keys, prefix_values, beam_keys, beam_values = layer
    B, K, J, C = k.shape
    R = q_BKHC.shape[2] // J
    P, G = prefix_keys.shape[3], beam_keys.shape[3]
    by_beam = q_BKHC.view(B * K * J, R, C)
    by_clip = q_BKHC.view(B, K, J, R * C).transpose(1, 2).reshape(B * J, K * R, C)
    to_prefix = torch.bmm(by_clip, prefix_keys.view(B * J, C, P)).view(B, J, K, R * P)
    to_prefix = to_prefix.transpose(1, 2).reshape(B, K * J, R, P) + masks[0]
    to_beam = torch.bmm(by_beam, beam_keys.view(B * K * J, C, G)).view(B, K * J, R, G) + masks[1]
    to_new = torch.bmm(by_beam, k.view(B * K * J, C, 1)).view(B, K * J, R, 1)
    weights = torch.cat((to_prefix, to_beam, to_new), dim=-1).softmax(dim=-1)
    of_beam = weights[..., P : P + G].reshape(B * K * J, R, G)
    mixed = torch.bmm(of_beam, beam_values.view(B * K * J, G, C))
    mixed = mixed + weights[..., P + G :].reshape(B * K * J, R, 1) * v.view(B * K * J, 1, C)
    of_prefix = weights[..., :P].reshape(B, K, J, R * P).transpose(1, 2)
    shared = torch.bmm(of_prefix.reshape(B * J, K * R, P), prefix_values.view(B * J, P, C))
    shared = shared.view(B, J, K, R * C).transpose(1, 2).reshape(B * K * J, R, C)
    return (mixed + shared).view(B, K, -1)
