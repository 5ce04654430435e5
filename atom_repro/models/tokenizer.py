"""Token ids of the decoder: a byte-level BPE with Llama 3's special tokens.

The same class reads a real Llama `tokenizer.json` and the small one that is trained on the toy
captions; no text is out of vocabulary for either.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from atom_repro.datatypes import AtomError

BEGIN = "<|begin_of_text|>"
END = "<|end_of_text|>"
PAD = "<|finetune_right_pad_id|>"
FILE = "tokenizer.json"


class Tokenizer:
    """Text to ids and back. Ids never include special tokens unless the caller adds them."""

    def __init__(self, fast: FastTokenizer) -> None:
        self._fast = fast
        self.begin_id, self.end_id, self.pad_id = (self._special(t) for t in (BEGIN, END, PAD))

    def _special(self, token: str) -> int:
        found: int | None = self._fast.token_to_id(token)
        if found is None:
            raise AtomError(f"the tokenizer has no {token}; a Llama 3 tokenizer.json is expected")
        return found

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int) -> "Tokenizer":
        """Learn at most `vocabulary` tokens; deterministic for the same texts in the same order."""
        fast = FastTokenizer(models.BPE())
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        fast.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[BEGIN, END, PAD],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        fast.train_from_iterator(texts, trainer)
        return cls(fast)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        path = folder / FILE
        if not path.is_file():
            raise AtomError(f"{path} is missing; the decoder's folder must hold its {FILE}")
        return cls(FastTokenizer.from_file(str(path)))

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(self._fast.to_str(), encoding="utf-8")

    @property
    def size(self) -> int:
        return int(self._fast.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._fast.decode(list(ids), skip_special_tokens=True)).strip()
