"""Key mappings of released checkpoints, one file for each source.

Every file here lists its sources in `SOURCES`; a new source is a new file.
"""

import importlib
import pkgutil

from atom_repro.checkpoints.released.source import IgnoredKey, KeyMapping, MappedKey, Role, Source

__all__ = ["IgnoredKey", "KeyMapping", "MappedKey", "Role", "Source", "all_sources"]


def all_sources() -> list[Source]:
    """All supported sources."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "source")
    return [s for n in names for s in importlib.import_module(f"{__name__}.{n}").SOURCES]
