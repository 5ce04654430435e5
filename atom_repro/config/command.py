"""What makes a function a command: its configuration, its errors, its exit status."""

import errno
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from atom_repro.config.composition import CONF, compose
from atom_repro.config.schemas import register
from atom_repro.datatypes import AtomError
from atom_repro.records.load import METER

Main = Callable[[Any], None]


def entry(primary: str, *, prose: Sequence[str] = ()) -> Callable[[Main], Callable[[], None]]:
    """Make `main(cfg)` a command whose configuration is `conf/<primary>.yaml`.

    `prose` names keys whose values are a person's sentences: commas, quotes and colons in them
    mean nothing to Hydra.

    Overrides are checked before Hydra starts, so that a mistake is one line naming the key; an
    `AtomError` from `main` is one line too. Exit status 1 for those, 130 after Ctrl-C.
    """

    def decorate(main: Main) -> Callable[[], None]:
        @functools.wraps(main)
        def command() -> None:
            METER.start()
            arguments = sys.argv[1:] = [_quoted(a, prose) for a in sys.argv[1:]]
            try:
                if all(_is_single_override(a) for a in arguments):
                    compose(primary, arguments)
            except AtomError as error:
                _refuse(error)
            configure_libraries()
            register()
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=primary)(
                _guard(main)
            )()

        return command

    return decorate


def configure_libraries() -> None:
    """Settings and filters that must be in place before torch and TorchAO are imported."""
    # Threads that wait for work sleep rather than spin: on a machine with other load,
    # spinning costs a factor of 4 to 20. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).addFilter(_says_something)


def _quoted(argument: str, prose: Sequence[str]) -> str:
    """The argument as Hydra takes it literally, if it is prose that is not quoted yet."""
    key, equals, value = argument.partition("=")
    already = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    if not equals or key not in prose or already:
        return argument
    # Hydra's grammar: a quote is escaped, and so are the backslashes before one.
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), value)
    escaped = escaped.replace("${", "\\${")
    return f"{key}='{escaped}'"


def _says_something(record: logging.LogRecord) -> bool:
    # On import TorchAO names each CUDA library that a CPU build lacks, and torch the deprecation
    # of a call that TorchAO makes. Neither concerns what is run here.
    text = record.getMessage()
    return not ("Failed to load" in text or "register_constant()" in text)


def _guard(main: Main) -> Main:
    @functools.wraps(main)
    def guarded(cfg: Any) -> None:
        try:
            main(cfg)
        except AtomError as error:
            _refuse(error)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            _refuse(AtomError(f"no space left on the disk ({error.filename}); free some, rerun"))
        except MemoryError as error:
            _refuse(AtomError(str(error) or "out of memory; free some, or choose a smaller scale"))
        except KeyboardInterrupt:
            sys.stderr.write(
                "\ninterrupted; finished work is kept, run the same command to go on\n"
            )
            sys.exit(130)

    return guarded


def _refuse(error: AtomError) -> None:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(1)


def _is_single_override(argument: str) -> bool:
    """False for Hydra's own flags and for sweeps, which Hydra checks job by job."""
    if argument.startswith("-"):
        return False
    try:
        parsed = OverridesParser.create().parse_overrides([argument])
    except HydraException:
        return True
    return not parsed[0].is_sweep_override()
