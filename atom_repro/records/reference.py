"""Reference machines: those whose records and tables are committed.

`results/reference_machines.txt` has one line per machine: the fingerprint and, after a #, a
description. Records of other machines are ignored by git (`.gitignore`), and their tables are in
`results/local/<machine>`.
"""

from pathlib import Path


def reference_machines(results: Path) -> list[str]:
    """Fingerprints in the order of the file; empty where there is no file."""
    path = results / "reference_machines.txt"
    if not path.is_file():
        return []
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line]
