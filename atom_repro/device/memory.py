"""How much memory this process holds, as Linux's /proc says."""

from pathlib import Path

from atom_repro.datatypes import AtomError


def anonymous_bytes() -> int:
    """Anonymous memory, resident or swapped out: what the process allocated itself. Weights that
    are mapped from files are not in it.

    Raises:
        AtomError: a system without /proc/self/status.
    """
    path = Path("/proc/self/status")
    if not path.is_file():
        raise AtomError(f"{path} is not there; memory is measured on Linux only")
    fields = dict(
        line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line
    )
    return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "VmSwap"))
