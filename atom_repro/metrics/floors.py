"""Caption baselines that ignore the video: floors that a model's score must exceed.

Pure functions from references to predictions; `caption.score_captions` scores them like any
other. Tables show them beside a model because a constant sentence already earns much
BLEU and ROUGE-L.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence


def central_sentences(training: Mapping[str, Sequence[str]], most: int) -> list[str]:
    """Returns the training sentences that are the most similar to all, the medoid first.

    Similarity is the Dice overlap of the two sets of words, 2·|a ∩ b| / (|a| + |b|), averaged
    over every training sentence; exact, in time linear in the words. The references of the
    evaluated clips are not used. Ties go to the alphabetically first.

    Raises:
        ValueError: no sentence has a word.
    """
    counts = Counter(text for texts in training.values() for text in texts if text.split())
    if not counts:
        raise ValueError("no training sentence to choose from")
    words = {text: frozenset(text.lower().split()) for text in counts}
    # Word to size (in distinct words) to number of sentences: sentences of one size share
    # Dice's denominator, so their overlaps add up word by word.
    sentences_with: dict[str, Counter[int]] = defaultdict(Counter)
    for text, count in counts.items():
        for word in words[text]:
            sentences_with[word][len(words[text])] += count

    def overlap(text: str) -> float:
        size = len(words[text])
        return sum(
            2 * count / (size + other_size)
            for word in sorted(words[text])
            for other_size, count in sentences_with[word].items()
        )

    return heapq.nsmallest(most, counts, key=lambda text: (-round(overlap(text), 9), text))


def constant_predictions(sentence: str, ids: Iterable[str]) -> dict[str, str]:
    """Returns the same sentence for every clip."""
    return dict.fromkeys(ids, sentence)


def shuffled_predictions(references: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns for each clip the first reference of the next clip (cyclic shift).

    Real sentences about the wrong clip: the floor of a captioner that knows the language and
    the subjects but ignores the video.

    Raises:
        ValueError: fewer than two clips, or a clip without references.
    """
    ids = list(references)
    if len(ids) < 2:
        raise ValueError(f"shuffled captions need at least two clips, got {len(ids)}")
    if missing := [key for key in ids if not references[key]]:
        raise ValueError(f"{len(missing)} clips have no references, such as {missing[:3]}")
    return {
        key: references[following][0] for key, following in zip(ids, ids[1:] + ids[:1], strict=True)
    }
