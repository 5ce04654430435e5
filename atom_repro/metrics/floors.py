"""Captions that saw no video: what a score is worth is how far it lies above theirs.

Pure functions from references to predictions; `caption.score_captions` scores them like any
other. They are printed beside a model's row because a constant sentence already earns much
BLEU and ROUGE-L.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence


def constant_sentence(training: Mapping[str, Sequence[str]]) -> str:
    """Returns the training sentence that is most like all training sentences.

    Likeness is the Dice overlap of the two sets of words, 2·|a ∩ b| / (|a| + |b|), averaged
    over every training sentence: the medoid, exactly, in time linear in the words. It never
    looks at the references of the evaluated clips. Of equals the alphabetically first wins.

    Raises:
        ValueError: no sentence has a word.
    """
    counts = Counter(text for texts in training.values() for text in texts if text.split())
    if not counts:
        raise ValueError("no training sentence to choose from")
    words = {text: frozenset(text.lower().split()) for text in counts}
    # How many sentences of each size (in distinct words) hold a word: sentences of one size
    # share Dice's denominator, so their overlaps add up word by word.
    holders: dict[str, Counter[int]] = defaultdict(Counter)
    for text, count in counts.items():
        for word in words[text]:
            holders[word][len(words[text])] += count

    def overlap(text: str) -> float:
        size = len(words[text])
        return sum(
            2 * count / (size + other)
            for word in sorted(words[text])
            for other, count in holders[word].items()
        )

    return min(counts, key=lambda text: (-round(overlap(text), 9), text))


def constant_predictions(sentence: str, ids: Iterable[str]) -> dict[str, str]:
    """Returns the same sentence for every clip."""
    return dict.fromkeys(ids, sentence)


def shuffled_predictions(references: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns for each clip the first reference of the next one, and so round.

    Real sentences about the wrong clip: the floor of a captioner that knows the language and
    the subjects but does not look.

    Raises:
        ValueError: fewer than two clips, or a clip without references.
    """
    ids = list(references)
    if len(ids) < 2:
        raise ValueError("the next clip's caption needs at least two clips")
    if bare := [key for key in ids if not references[key]]:
        raise ValueError(f"{len(bare)} clips have no references, such as {bare[:3]}")
    return {
        key: references[following][0] for key, following in zip(ids, ids[1:] + ids[:1], strict=True)
    }
