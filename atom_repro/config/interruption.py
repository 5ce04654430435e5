"""Ctrl-C while a command imports its libraries: one line, where Python prints where it was.

Imports take seconds, and an interruption inside one may come out of it as another error, or be
swallowed. Nothing is under way that could be lost, so the process ends at once.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

NOTICE = "\ninterrupted; finished work is kept, run the same command to resume\n"
STATUS = 130

_ROOT = Path(__file__).resolve().parents[2]


def end_at_once_while_importing() -> None:
    """Let Ctrl-C end a command of this checkout in which the main module imports something; it is
    raised as ever otherwise, in other programs, and where it is ignored or handled already."""
    if not _is_command() or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)


def _is_command() -> bool:
    origin = getattr(getattr(sys.modules["__main__"], "__spec__", None), "origin", None)
    return origin is not None and Path(origin).resolve().parent.parent == _ROOT


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    if _main_imports(frame):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, NOTICE.encode())
        os._exit(STATUS)
    signal.default_int_handler(number, frame)


def _main_imports(frame: FrameType | None) -> bool:
    """Whether the main module is importing at this frame."""
    while frame is not None and frame.f_back is not None:
        importing = frame.f_code.co_filename.startswith("<frozen importlib")
        if importing and frame.f_back.f_globals.get("__name__") == "__main__":
            return True
        frame = frame.f_back
    return False
