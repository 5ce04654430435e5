"""Loading and calling of ExecuTorch files with the XNNPACK backend: weights, threads, options.

What Python's binding has no call for is reached through the wheel's own libraries: the backend's
options, which must be set before a load, and the thread pool, which XNNPACK takes at the load. A
method that is called with all threads and with one is therefore loaded twice; both share the packed
weights.
"""

import ctypes
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atom_repro.datatypes import AtomError
from atom_repro.models.exported import MethodCall
from atom_repro.records.record import out_of_memory

_BACKEND = b"XnnpackBackend"
_SET_OPTION = "_ZN10executorch7runtime10set_optionEPKcNS0_4SpanINS0_13BackendOptionEEE"
_POOL = "_ZN10executorch9extension10threadpool"
_GET_POOL = f"{_POOL}14get_threadpoolEv"
_RESET_POOL = f"{_POOL}10ThreadPool24_unsafe_reset_threadpoolEj"
_SET_ONE_THREAD = f"{_POOL}17NoThreadPoolGuard11set_enabledEb"
_BOOL, _INT = 0, 1  # positions in the option's std::variant<bool, int, char[256]>


class _Option(ctypes.Structure):
    """`executorch::runtime::BackendOption` of ExecuTorch 1.5."""

    _fields_ = (
        ("key", ctypes.c_char * 64),
        ("value", ctypes.c_int),
        ("rest", ctypes.c_char * 252),
        ("index", ctypes.c_ubyte),
        ("padding", ctypes.c_char * 3),
    )


@cache
def _library(name: str) -> ctypes.CDLL:
    import executorch

    return ctypes.CDLL(str(Path(executorch.__path__[0]) / "lib" / name))


def _set_option(key: bytes, value: int, index: int) -> None:
    option = _Option(key=key, value=value, index=index)
    call = _library("libexecutorch.so")[_SET_OPTION]
    call.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
    if error := call(_BACKEND, ctypes.addressof(option), 1):
        raise AtomError(f"XNNPACK refused the option {key.decode()} (error {error:#x})")


_of_thread = threading.local()


def use_threads(threads: int) -> None:
    """Run methods called by this thread with one thread, or with all of the pool; torch's own
    operations get one. They are small, and torch's threads would wait for work on the cores that
    the pool needs."""
    _of_thread.threads = threads
    torch.set_num_threads(1)


@cache
def start_runtime() -> tuple[Any, int]:
    """Start the runtime once: returns it with its options set, and how many threads its pool has,
    as many as torch has then. Importing it takes seconds."""
    threads = torch.get_num_threads()
    with _no_native_messages(), no_python_messages():
        from executorch.runtime import Runtime

        runtime = Runtime.get()
        _set_option(b"weight_cache_enabled", True, _BOOL)  # methods share their packed weights
        _set_option(b"workspace_sharing_mode", 1, _INT)  # by model: none waits for another
        pool = _library("libexecutorch_threadpool.so")
        get_pool, reset_pool = pool[_GET_POOL], pool[_RESET_POOL]
        get_pool.restype = ctypes.c_void_p
        reset_pool.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        reset_pool(get_pool(), threads)
    return runtime, threads


@contextmanager
def _no_native_messages() -> Iterator[None]:
    """Keep what the libraries print of the processor while they start off the screen."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def no_python_messages() -> Iterator[None]:
    """Keep warnings and logs of the packages off the screen."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Methods loaded inside run in the thread that calls them."""
    set_one_thread = _library("libexecutorch_threadpool.so")[_SET_ONE_THREAD]
    set_one_thread.argtypes = [ctypes.c_bool]
    set_one_thread(True)
    try:
        yield
    finally:
        set_one_thread(False)


class Program:
    """The methods of an exported file. Calls are thread-safe, and one method runs at a time."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        """Load methods, packing their weights.

        Raises:
            AtomError: the file does not load.
            MemoryError: too little memory.
        """
        runtime, self.threads = start_runtime()
        keys = [(name, self._threads_here()) for name in names]
        self._lock = threading.Lock()
        try:
            # Mapped rather than read: the raw weights are clean pages that the system can drop.
            self._program = runtime.load_program(path)
            self._methods = {key: self._load(*key) for key in keys}
        except Exception as error:
            if out_of_memory(error) or "0x21" in str(error):
                raise MemoryError(f"no memory left to load {path}; free some") from error
            raise AtomError(
                f"{path} does not load ({' '.join(str(error).split())[:200]}); delete its folder, "
                "it is exported again on the next run"
            ) from error

    def _threads_here(self) -> int:
        """One thread, or all of the pool, as `use_threads` says in this thread, or else torch."""
        threads = getattr(_of_thread, "threads", None) or torch.get_num_threads()
        return 1 if threads == 1 else self.threads

    def _load(self, name: str, threads: int) -> Any:
        with _one_thread() if threads == 1 else nullcontext():
            return self._program._program.load_method(name)

    def method(self, name: str) -> MethodCall:
        """A method as a function of tensors. It runs with one thread or all of the pool, as
        `use_threads` says in the calling thread, or else torch. Other threads than those of the
        load take another method over the same weights, which the first such call loads: a few
        hundredths of a second, and the method's memory for activations."""

        def call(*inputs: Tensor) -> Sequence[Tensor]:
            key = name, self._threads_here()
            with self._lock:
                if key not in self._methods:
                    self._methods[key] = self._load(*key)
                outputs: Sequence[Tensor] = self._methods[key]([x.contiguous() for x in inputs])
            return outputs

        return call
