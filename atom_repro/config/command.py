"""Decorator that turns a function into a command: configuration, errors, exit status."""

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
from atom_repro.records.system_load import METER

Main = Callable[[Any], None]


def entry(primary: str, *, prose: Sequence[str] = ()) -> Callable[[Main], Callable[[], None]]:
    """Decorate `main(cfg)` as a command whose configuration is `conf/<primary>.yaml`.

    `prose` names keys whose values are free text, in which commas, quotes and colons are escaped
    from Hydra's grammar.

    Overrides are checked before Hydra starts, so that an error is one line naming the key, as is
    an `AtomError` from `main`. Exit status 1 for those, 130 after Ctrl-C.
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
                _fail(error)
            configure_libraries()
            register()
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=primary)(
                _with_error_exits(main)
            )()

        return command

    return decorate


def configure_libraries() -> None:
    """Settings and filters that must be in place before torch and TorchAO are imported."""
    # Threads that wait for work sleep rather than spin: on a machine with other load,
    # spinning costs a factor of 4 to 20. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).addFilter(_is_relevant)


def _quoted(argument: str, prose: Sequence[str]) -> str:
    """Quote the value of a free-text argument for Hydra, unless it is quoted already."""
    key, equals, value = argument.partition("=")
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    if not equals or key not in prose or is_quoted:
        return argument
    # Hydra's grammar: a quote is escaped, and so are the backslashes before one.
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), value)
    escaped = escaped.replace("${", "\\${")
    return f"{key}='{escaped}'"


def _is_relevant(record: logging.LogRecord) -> bool:
    # On import TorchAO logs each CUDA library that a CPU build lacks, and torch the deprecation of
    # a call that TorchAO makes. Neither matters here.
    text = record.getMessage()
    return not ("Failed to load" in text or "register_constant()" in text)


def _with_error_exits(main: Main) -> Main:
    @functools.wraps(main)
    def guarded(cfg: Any) -> None:
        try:
            main(cfg)
        except AtomError as error:
            _fail(error)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            _fail(AtomError(f"no space left on the disk ({error.filename}); free some and rerun"))
        except MemoryError as error:
            _fail(AtomError(str(error) or "out of memory; free some, or choose a smaller scale"))
        except KeyboardInterrupt:
            sys.stderr.write(
                "\ninterrupted; finished work is kept, run the same command to resume\n"
            )
            sys.exit(130)

    return guarded


def _fail(error: AtomError) -> None:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(1)


def _is_single_override(argument: str) -> bool:
    """Whether the argument is an override of a single run: no Hydra flag, no sweep."""
    if argument.startswith("-"):
        return False
    try:
        parsed = OverridesParser.create().parse_overrides([argument])
    except HydraException:
        return True
    return not parsed[0].is_sweep_override()
