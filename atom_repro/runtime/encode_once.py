"""Clips as windows over frames that are encoded once, for encoders that see each frame by itself.

Windows of one length whose starts lie a whole number of sampling steps apart (`window / frames`
seconds) take their frames from one grid in time: at a stride of half a window, every frame is in
two of them. Equal frames have equal visual tokens, so captions stay what they are. An encoder's
call takes as many frames as a clip has; one that a clip does not fill takes frames of those behind.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b

import torch
from torch import Tensor

from atom_repro.datatypes import Clip
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.runtime.captioning import ClipBatch


class EncodeOnce:
    """Encodes batches of clips in order, each distinct frame once as long as a batch has it.

    Args:
        batches: that will be encoded.
        read: reads the frames of a batch.
        encode: encodes frames (1, T, 3, H, W); `item` names the work.
    """

    def __init__(
        self,
        batches: Sequence[Sequence[Clip]],
        read: Callable[[Sequence[Clip]], ClipBatch],
        encode: Callable[[str, Tensor], VisualTokens],
    ) -> None:
        self._unread = deque(batches)
        self._read, self._encode = read, encode
        self._ahead: deque[ClipBatch] = deque()
        self._tokens: dict[bytes, Tensor] = {}  # of a frame, (N, E), by the hash of its pixels

    def __call__(self, clips: Sequence[Clip]) -> ClipBatch:
        """The next batch with its visual tokens."""
        batch = self._ahead.popleft() if self._ahead else self._read_next()
        assert batch is not None
        assert batch.clips == tuple(clips)
        if batch.frames is None:
            return batch
        while missing := self._missing([batch]):
            self._encode_some(batch, missing)
        clip_tokens = [[self._tokens[key] for key in keys] for keys in _keys(batch)]
        tokens = torch.stack([torch.cat(frames) for frames in clip_tokens])
        frame_tokens = tuple(len(frame) for frame in clip_tokens[0])
        still = {key for each in (batch, *self._ahead) for keys in _keys(each) for key in keys}
        self._tokens = {key: value for key, value in self._tokens.items() if key in still}
        return replace(batch, frames=None, visual=VisualTokens(tokens, frame_tokens))

    def _read_next(self) -> ClipBatch | None:
        return self._read(self._unread.popleft()) if self._unread else None

    def _missing(self, batches: Sequence[ClipBatch]) -> dict[bytes, Tensor]:
        """Frames of batches that are not encoded, by their hash, in order."""
        return {
            key: frame
            for batch in batches
            if batch.frames is not None
            for keys, frames in zip(_keys(batch), batch.frames, strict=True)
            for key, frame in zip(keys, frames, strict=True)
            if key not in self._tokens
        }

    def _encode_some(self, batch: ClipBatch, missing: dict[bytes, Tensor]) -> None:
        """Encode as many missing frames as a call takes, those of the batch first."""
        assert batch.frames is not None
        places = batch.frames.shape[1]
        missing |= self._missing(self._ahead)
        while len(missing) < places and len(self._ahead) < places:
            following = self._read_next()
            if following is None:
                break
            self._ahead.append(following)
            missing |= self._missing([following])
        keys = list(missing)[:places]
        repeated = [*keys, *[keys[-1]] * (places - len(keys))]
        visual = self._encode(batch.item, torch.stack([missing[key] for key in repeated])[None])
        by_frame = visual.tokens[0].split(visual.frame_tokens)
        self._tokens |= dict(zip(keys, by_frame, strict=False))


def _keys(batch: ClipBatch) -> list[list[bytes]]:
    """The hash of each frame of each clip."""
    if batch.frames is None:
        return []
    return [
        [blake2b(frame.numpy().tobytes(), digest_size=16).digest() for frame in frames]
        for frames in batch.frames
    ]
