"""Properties of characters for the runner's tokenizers, as a table (device_bench/runner/unicode.h).

C++ has none of its own. Versions of Unicode differ between libraries in characters that were added
lately; this table is that of Python.
"""

import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from atom_repro.records.atomic import atomic_write

# As in unicode.h.
_LETTER, _NUMBER, _SPACE, _WORD, _NONSPACING_MARK, _PUNCTUATION, _OTHER = (
    2**bit for bit in range(7)
)
# Unicode's White_Space; Python's isspace has four separators more.
_SPACES = frozenset(
    map(chr, (*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029,
              0x202F, 0x205F, 0x3000))
)  # fmt: skip
# What Unicode counts as alphabetic beside letters and marks: circled and squared letters; and the
# two joiners, which belong to words.
_ALSO_WORD = frozenset(
    map(chr, (*range(0x24B6, 0x24EA), *range(0x1F130, 0x1F14A), *range(0x1F150, 0x1F16A),
              *range(0x1F170, 0x1F18A), 0x200C, 0x200D))
)  # fmt: skip


def write_unicode_table(path: Path) -> None:
    """Write the table: `p FIRST LAST PROPERTIES` for runs of characters that are alike, `d` and `l`
    for canonical decompositions and lower cases, all in hexadecimal."""
    lines = [f"p {first:x} {last:x} {bits:x}" for first, last, bits in _runs() if bits]
    for character in map(chr, _code_points()):
        decomposed = unicodedata.normalize("NFD", character)
        lines += [_mapping("d", character, decomposed)] if decomposed != character else []
        lower = character.lower()
        lines += [_mapping("l", character, lower)] if lower != character else []
    with atomic_write(path) as new:
        new.write_text("\n".join(lines) + "\n", encoding="ascii")


def _mapping(kind: str, character: str, text: str) -> str:
    return " ".join([kind, f"{ord(character):x}", *(f"{ord(c):x}" for c in text)])


def _code_points() -> Iterator[int]:
    """All code points but surrogates, which no text has."""
    yield from range(0xD800)
    yield from range(0xE000, sys.maxunicode + 1)


def _runs() -> Iterator[tuple[int, int, int]]:
    """First, last and properties of the longest runs of characters that have the same."""
    first, last, bits = 0, -1, 0
    for code in _code_points():
        own = _properties(chr(code))
        if own != bits or code != last + 1:
            if last >= first:
                yield first, last, bits
            first, bits = code, own
        last = code
    yield first, last, bits


def _properties(character: str) -> int:
    category = unicodedata.category(character)
    is_word = category[0] in "LM" or category in ("Nd", "Nl", "Pc") or character in _ALSO_WORD
    return (
        _LETTER * (category[0] == "L")
        | _NUMBER * (category[0] == "N")
        | _SPACE * (character in _SPACES)
        | _WORD * is_word
        | _NONSPACING_MARK * (category == "Mn")
        | _PUNCTUATION * (category[0] == "P")
        | _OTHER * (category[0] == "C")
    )
