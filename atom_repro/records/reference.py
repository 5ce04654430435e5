"""Reference machines: those whose records and tables are committed.

`results/reference_machines.txt` has a line each, the fingerprint and, behind a #, the machine in
words. Any other machine keeps its records where git does not look (`.gitignore`) and its tables in
`results/local/<machine>`.
"""

from pathlib import Path


def reference_machines(results: Path) -> list[str]:
    """Fingerprints in the order of the file; none where there is no file."""
    listed = results / "reference_machines.txt"
    if not listed.is_file():
        return []
    lines = (line.partition("#")[0].strip() for line in listed.read_text("utf-8").splitlines())
    return [line for line in lines if line]
