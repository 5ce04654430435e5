"""Released checkpoints, one file a source: what each of its keys is to us.

A source is a value in `SOURCES` of a file here; a new one is a new file.
"""

import importlib
import pkgutil

from atom_repro.checkpoints.released.source import Ignored, Place, Placed, Role, Source

__all__ = ["Ignored", "Place", "Placed", "Role", "Source", "all_sources"]


def all_sources() -> list[Source]:
    """Every source that is known."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "source")
    return [s for n in names for s in importlib.import_module(f"{__name__}.{n}").SOURCES]
