"""Decorator that turns a function into a command: configuration, errors, exit status."""

import errno
import functools
import inspect
import io
import itertools
import logging
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, cast

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from atom_repro.config.composition import CONF, compose, config_keys
from atom_repro.config.interruption import NOTICE, STATUS, end_at_once_while_importing
from atom_repro.config.schemas import register
from atom_repro.datatypes import AtomError
from atom_repro.records.system_load import METER

Main = Callable[[Any], None]

# Keys whose values are paths of the user's.
_PATHS = (
    "paths.work", "paths.results", "checkpoint.folder", "dataset.annotations", "dataset.file",
    "dataset.videos", "from_predictions", "java", "train.start", "target", "sources.video",
    "sources.text", "sources.whole", "sources.tokenizer", "videos", "index", "output",
)  # fmt: skip

LOADING = "loading libraries …\n"

# Errors of the operating system that are no fault of ours, and the way out.
_OF_THE_SYSTEM = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EACCES: "change its permissions, or name another",
    errno.EPERM: "change its permissions, or name another",
    errno.EROFS: "name one that can be written",
    errno.EIO: "the drive or the network fails; check it and run the same command again",
    errno.ENAMETOOLONG: "name a shorter one",
    errno.ENOTDIR: "a part of that path is a file; name another",
}


def entry(primary: str, *, prose: Sequence[str] = ()) -> Callable[[Main], Callable[[], None]]:
    """Decorate `main(cfg)` as a command whose configuration is `conf/<primary>.yaml`.

    `prose` names keys whose values are free text, in which commas, quotes and colons are escaped
    from Hydra's grammar; so they are in paths, which may refer to other settings by `${…}`.

    Overrides are checked before Hydra starts, so that an error is one line naming the key, as is
    an `AtomError` from `main`. Exit status 1 for those, 130 after Ctrl-C. `--help` begins with the
    docstring of the command's module.
    """

    def decorate(main: Main) -> Callable[[], None]:
        @functools.wraps(main)
        def command() -> None:
            end_at_once_while_importing()  # also where the server of stages has imported this
            METER.start()
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):  # a file's name may not be UTF-8
                    stream.reconfigure(errors="backslashreplace")
            try:
                _run(primary, main, prose)
            except KeyboardInterrupt:
                sys.stderr.write(NOTICE)
                sys.exit(STATUS)

        return command

    return decorate


def _run(primary: str, main: Main, prose: Sequence[str]) -> None:
    given = sys.argv[1:]
    if {"-h", "--help"} & set(given):
        sys.stdout.write(f"{cast(FunctionType, inspect.unwrap(main)).__globals__['__doc__']}\n")
    sweeps = bool({"-m", "--multirun"} & set(given))
    arguments = sys.argv[1:] = [_quoted(a, prose, () if sweeps else _PATHS) for a in given]
    try:
        _check_dashes(primary, given)
        if all(_is_single_override(a) for a in arguments):
            compose(primary, arguments)
    except AtomError as error:
        _fail(error)
    configure_libraries()
    register()
    if sys.stderr.isatty() and multiprocessing.parent_process() is None:
        sys.stderr.write(LOADING)  # which takes seconds
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=primary)(
        _with_error_exits(main)
    )()


def _check_dashes(primary: str, arguments: Sequence[str]) -> None:
    """Check that no setting is written as an option.

    Raises:
        AtomError: one is; says how it is written.
    """
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        option = re.match(r"--?([\w.]+)(?:=(.*))?$", argument, re.S)
        if option and option[1] in config_keys(primary):
            value = following if option[2] is None else option[2]
            raise AtomError(f"{argument}: settings have no dashes; write {option[1]}={value!r}")


def configure_libraries() -> None:
    """Settings and filters that must be in place before torch and TorchAO are imported."""
    # Threads that wait for work sleep rather than spin: on a machine with other load,
    # spinning costs a factor of 4 to 20. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).addFilter(_is_relevant)


def _quoted(argument: str, prose: Sequence[str], paths: Sequence[str]) -> str:
    """Quote the value of a free-text argument, or of a path, for Hydra, unless it is quoted
    already."""
    key, equals, value = argument.partition("=")
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    if not equals or key not in (*prose, *paths) or is_quoted:
        return argument
    # Hydra's grammar: a quote is escaped, and so are the backslashes before one.
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), value)
    if key in prose:
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
            if error.errno not in _OF_THE_SYSTEM:
                raise
            _fail(AtomError(f"{error.filename}: {error.strerror}; {_OF_THE_SYSTEM[error.errno]}"))
        except MemoryError as error:
            _fail(AtomError(str(error) or "out of memory; free some, or choose a smaller scale"))

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
