"""STS-B: sentence pairs with human similarity scores from 0 to 5 (Table 7).

Not a data set of clips. Read from the official `sts-test.csv` (tab separated, seven columns and
more), from the three-column `stsb-en-test.csv` of stsb-multi-mt, or from a hub id, whose scores
may range from 0 to 1, as correlation does not depend on the scale. Counts are asserted, as figures
on a subset are not comparable.
"""

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from atom_repro.data.annotations import SourceFile, clean, read_lines, read_text
from atom_repro.datatypes import AtomError

PAIRS = {"train": 5749, "validation": 1500, "test": 1379}
PROTOCOL = "stsb/test"
_SHORT_NAMES = {"train": "train", "validation": "dev", "test": "test"}
_CHECKSUMS = {
    "train": "e1e84fec60bbb598735552f54a35f4949904a484750fd2cb11e2720e49f63da6",
    "dev": "d29586e96558c4eb52cf5ea5d14e9c24d3bf0e44f111b017caba43a5adc33226",
    "test": "11523b625219e94e9ca05d2816b5f02cac1614c5894fe657376fa0806378d053",
}
SOURCES = {
    split: SourceFile(
        (f"stsb-en-{short}.csv", f"sts-{short}.csv"),
        f"the {split} split",
        "in the GitHub repository PhilipMay/stsb-multi-mt under data/ (CC BY-SA 4.0), or from "
        "ixa2.si.ehu.eus/stswiki (Stsbenchmark.tar.gz)",
        (_CHECKSUMS[short],),
    )
    for split, short in _SHORT_NAMES.items()
}


@dataclass(frozen=True)
class Pair:
    """A sentence pair and its human similarity score."""

    first: str
    second: str
    score: float


class StsBenchmark:
    """The STS benchmark from files or from the hub; created by `build`."""

    name = "stsb"
    splits = tuple(PAIRS)
    files = tuple(SOURCES[s] for s in ("test", "validation", "train"))

    def __init__(self, annotations: str, hub_id: str) -> None:
        self.annotations = Path(annotations)
        self.hub_id = hub_id
        self._pairs: dict[str, list[Pair]] = {}

    def fingerprint(self, split: str) -> str:
        """sha256 over the pairs, the same for every source of the same pairs."""
        text = "\n".join(f"{p.first}\t{p.second}\t{p.score:.3f}" for p in self.pairs(split))
        return hashlib.sha256(text.encode()).hexdigest()

    def pairs(self, split: str) -> list[Pair]:
        """All pairs of a split, in the file's order.

        Raises:
            AtomError: an unknown split, a missing or broken file, or a count other than the
                published one.
        """
        if split not in PAIRS:
            raise AtomError(f"stsb has no split {split!r}; choose one of {self.splits}")
        if split not in self._pairs:
            pairs = self._from_hub(split) if self.hub_id else self._from_file(split)
            if len(pairs) != PAIRS[split]:
                raise AtomError(
                    f"stsb/{split} has {PAIRS[split]} pairs, found {len(pairs)}; fetch it again"
                )
            self._pairs[split] = pairs
        return list(self._pairs[split])

    def _from_file(self, split: str) -> list[Pair]:
        path = SOURCES[split].require(self.annotations)
        rows: list[tuple[str, list[str]]]
        if path.name.startswith("stsb-en-"):
            reader = csv.reader(io.StringIO(read_text(path), newline=""))
            rows = [(f"{path}:{reader.line_num}", row) for row in reader if row]
            columns = (0, 1, 2)
        else:
            # No quoting: a lone quotation mark is part of a sentence.
            rows = [(where, line.split("\t")) for where, line in read_lines(path)]
            columns = (5, 6, 4)
        return [_pair(row, columns, where) for where, row in rows]

    def _from_hub(self, split: str) -> list[Pair]:
        from atom_repro.data.hub import load_rows

        rows = load_rows(self.hub_id, "", split, ("sentence1", "sentence2", "score"), revision="")
        return [
            _pair([str(r["sentence1"]), str(r["sentence2"]), str(r["score"])], (0, 1, 2), where)
            for where, r in rows
        ]


def _pair(row: list[str], columns: tuple[int, int, int], where: str) -> Pair:
    first, second, score = columns
    try:
        return Pair(clean(row[first], where), clean(row[second], where), float(row[score]))
    except (IndexError, ValueError) as error:
        raise AtomError(f"{where}: not two sentences and a score") from error


def build(*, annotations: str, hub_id: str) -> StsBenchmark:
    """Create the benchmark; no file is read yet.

    Args:
        annotations: folder of the files.
        hub_id: empty to read the files, or a hub id such as `sentence-transformers/stsb`.
    """
    return StsBenchmark(annotations, hub_id)
