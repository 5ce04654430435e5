"""The decoder's tokenizer: a `tokenizer.json` and the special tokens of the model family.

The same class reads a released tokenizer, the small byte-level BPE that is trained on the toy
captions, for which no text is out of vocabulary, and a word-level one for random weights.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from atom_repro.datatypes import AtomError
from atom_repro.models.vlm import SpecialTokens

TOKENIZER_FILE = "tokenizer.json"


class Tokenizer:
    """Text to ids and back. Ids never include special tokens unless the caller adds them."""

    def __init__(self, fast: FastTokenizer, specials: SpecialTokens) -> None:
        self._fast = fast
        self.begin_id = self.special_id(specials.begin)
        self.end_id = self.special_id(specials.end)
        self.pad_id = self.special_id(specials.pad)

    def special_id(self, token: str) -> int:
        """The id of a special token.

        Raises:
            AtomError: the tokenizer has none of that name.
        """
        token_id: int | None = self._fast.token_to_id(token)
        if token_id is None:
            raise AtomError(
                f"the tokenizer has no special token {token}, which the model uses; give the "
                f"{TOKENIZER_FILE} that belongs to the model"
            )
        return token_id

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int, specials: SpecialTokens) -> "Tokenizer":
        """Train a BPE of at most `vocabulary` tokens; deterministic for texts in the same order."""
        fast = FastTokenizer(models.BPE())
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        fast.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[specials.begin, specials.end, specials.pad, *specials.others],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        fast.train_from_iterator(texts, trainer)
        return cls(fast, specials)

    @classmethod
    def word_level(cls, vocabulary: int, specials: SpecialTokens) -> "Tokenizer":
        """Create a word-level tokenizer for random weights: each id is a word `w<id>`, and an
        unknown word is one token."""
        special_tokens = [specials.begin, specials.end, specials.pad, *specials.others]
        words = [*special_tokens, *(f"w{i}" for i in range(len(special_tokens), vocabulary))]
        fast = FastTokenizer(
            models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[-1])
        )
        fast.pre_tokenizer = pre_tokenizers.Whitespace()
        fast.add_special_tokens(special_tokens)
        return cls(fast, specials)

    @classmethod
    def load(cls, folder: Path, specials: SpecialTokens) -> "Tokenizer":
        path = folder / TOKENIZER_FILE
        if not path.is_file():
            raise AtomError(
                f"{path} is missing; the decoder's folder must hold its {TOKENIZER_FILE}"
            )
        return cls(FastTokenizer.from_file(str(path)), specials)

    def save(self, folder: Path) -> None:
        (folder / TOKENIZER_FILE).write_text(self._fast.to_str(), encoding="utf-8")

    @property
    def size(self) -> int:
        return int(self._fast.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._fast.decode(list(ids), skip_special_tokens=True)).strip()
