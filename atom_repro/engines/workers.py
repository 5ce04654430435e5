"""Worker processes that load modules and run their calls, so that two modules compute at once.

ExecuTorch's Python binding holds the interpreter's lock while a method runs: threads of one process
cannot overlap an encoder and a decoder. Each loaded module therefore lives in a process of its own;
what goes to and fro is small beside a call (frames, visual tokens, texts). A process outlives the
module in it and serves the next load, so a load does not pay for starting Python.
"""

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atom_repro.device.memory import count_process, forget_process
from atom_repro.models.generation import Generated, GenerationSettings
from atom_repro.models.visual_tokens import VisualTokens

_STOPPED_S = 5.0
_ENVIRONMENT_LOCK = threading.Lock()


class Worker:
    """A process that holds one module at a time. Its calls run one after the other."""

    def __init__(
        self,
        start: Callable[[], object],
        use_threads: Callable[[int], None],
        environment: Mapping[str, str],
    ) -> None:
        """Start the process, and in it whatever `start` starts, with as many threads as torch has
        here; `wait` until it is ready.

        Args:
            use_threads: sets the threads of a call, to those that torch has where it is made.
            environment: variables of the process, where this one does not set them.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._lock = threading.Lock()
        self._ready = False
        self._process = context.Process(
            target=_serve,
            args=(theirs, start, use_threads, torch.get_num_threads()),
            daemon=True,
        )
        with _environment(environment):
            self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def wait(self) -> None:
        """Wait until the process has started; raises what went wrong in it."""
        if not self._ready:
            self._answer()
            self._ready = True

    def request(self, kind: str, *content: Any) -> Any:
        """Have the process do something; returns its result or raises its error.

        Raises:
            MemoryError: the process was killed, as systems do that run out of memory.
        """
        with self._lock:
            self.wait()
            try:
                self._connection.send((kind, torch.get_num_threads(), _packed(content)))
            except OSError as error:
                raise self._killed() from error
            return self._answer()

    def stop(self) -> None:
        """End the process."""
        self._connection.close()  # the process ends when nobody can send to it
        self._process.join(_STOPPED_S)
        if self._process.is_alive():
            self._process.kill()

    def _answer(self) -> Any:
        try:
            result, error = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._killed() from error
        if error is not None:
            raise error
        return _unpacked(result)

    def _killed(self) -> MemoryError:
        self._process.join(_STOPPED_S)  # so that `alive` knows
        return MemoryError(
            "the process of a module was killed, most likely for lack of memory; free some, or "
            "choose smaller modules (quant=8da8w)"
        )


@contextmanager
def _environment(added: Mapping[str, str]) -> Iterator[None]:
    """Set variables that are not set, for the processes that are started inside."""
    with _ENVIRONMENT_LOCK:
        new = {name: value for name, value in added.items() if name not in os.environ}
        os.environ.update(new)
        try:
            yield
        finally:
            for name in new:
                del os.environ[name]


class Workers:
    """Processes that are free, and those that will be needed."""

    def __init__(
        self,
        start: Callable[[], object],
        use_threads: Callable[[int], None] = torch.set_num_threads,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._start = partial(Worker, start, use_threads, environment)
        self._free: list[Worker] = []
        self._lock = threading.Lock()
        atexit.register(self.stop)

    def start(self, number: int) -> None:
        """Have `number` processes free; they start at the same time."""
        with self._lock:
            self._free = [worker for worker in self._free if worker.alive]
            self._free += [self._start() for _ in range(number - len(self._free))]
            for worker in self._free:
                worker.wait()

    def take(self) -> Worker:
        """A free process, started if there is none."""
        with self._lock:
            while self._free:
                worker = self._free.pop()
                if worker.alive:
                    return worker
                worker.stop()
        return self._start()

    def give_back(self, worker: Worker) -> None:
        with self._lock:
            self._free.append(worker)

    def stop(self) -> None:
        """End the free processes."""
        with self._lock:
            while self._free:
                self._free.pop().stop()


@dataclass
class RemoteModule:
    """A module in a process of `workers`: an encoder, a decoder or an embedder."""

    workers: Workers
    worker: Worker

    @classmethod
    def load(cls, workers: Workers, read: Callable[..., Any], *arguments: Any) -> "RemoteModule":
        """Load a module by `read(*arguments)` in a process; raises what it raises."""
        worker = workers.take()
        count_process(worker.pid)
        module = cls(workers, worker)
        try:
            worker.request("load", read, arguments)
        except BaseException:
            module._give_back()
            raise
        return module

    def __call__(self, *arguments: Any) -> Any:
        return self.worker.request("call", "__call__", arguments)

    def generate(
        self, visual: VisualTokens | None, prompt: str, settings: GenerationSettings
    ) -> list[Generated]:
        generated: list[Generated] = self.worker.request(
            "call", "generate", (visual, prompt, settings)
        )
        return generated

    def score(
        self, visual: VisualTokens | None, prompt: str, continuations: Sequence[str]
    ) -> list[list[tuple[float, ...]]]:
        scores: list[list[tuple[float, ...]]] = self.worker.request(
            "call", "score", (visual, prompt, continuations)
        )
        return scores

    def ask(self, name: str, *arguments: Any) -> Any:
        """Call another method of the module."""
        return self.worker.request("call", name, arguments)

    def batch(self, prompt: str, settings: GenerationSettings) -> "RemoteBatch":
        self.worker.request("open_batch", prompt, settings)
        return RemoteBatch(self.worker)

    def release(self) -> None:
        self.worker.request("release")
        self._give_back()

    def _give_back(self) -> None:
        forget_process(self.worker.pid)  # a process without a module is no session's memory
        self.workers.give_back(self.worker)


@dataclass(frozen=True)
class RemoteBatch:
    """The batch of the decoder in a worker process."""

    worker: Worker

    def add(self, number: int, visual: VisualTokens) -> dict[int, Generated]:
        done: dict[int, Generated] = self.worker.request("of_batch", "add", (number, visual))
        return done

    def advance(self, most_steps: int) -> dict[int, Generated]:
        done: dict[int, Generated] = self.worker.request("of_batch", "advance", (most_steps,))
        return done


class _Host:
    """The module of a worker process, and what can be asked of it."""

    module: Any = None
    batch: Any = None

    def load(self, read: Callable[..., Any], arguments: Sequence[Any]) -> None:
        self.module = read(*arguments)

    def call(self, name: str, arguments: Sequence[Any]) -> Any:
        return getattr(self.module, name)(*arguments)

    def open_batch(self, prompt: str, settings: GenerationSettings) -> None:
        self.batch = self.module.batch(prompt, settings)

    def of_batch(self, name: str, arguments: Sequence[Any]) -> Any:
        return getattr(self.batch, name)(*arguments)

    def release(self) -> None:
        self.batch = None
        self.module.release()
        self.module = None


def _serve(
    connection: Connection,
    start: Callable[[], object],
    use_threads: Callable[[int], None],
    threads: int,
) -> None:
    """Answer requests until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then closes
    torch.set_num_threads(threads)
    host = _Host()

    def started() -> None:
        start()

    try:
        _reply(connection, started)
        while True:
            kind, threads, content = connection.recv()
            use_threads(threads)
            _reply(connection, partial(getattr(host, kind), *_unpacked(content)))
    except (EOFError, OSError):
        return


def _reply(connection: Connection, work: Callable[[], Any]) -> None:
    try:
        result = work()
    except Exception as error:  # noqa: BLE001  raised by the process that asked
        _drop_traceback(error)
        connection.send((None, error))
    else:
        connection.send((_packed(result), None))


def _drop_traceback(error: BaseException | None) -> None:
    """Let go of the frames of an error, which may hold a module's memory."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _packed(value: Any) -> Any:
    """A value with tensors as arrays, which travel by their bytes; torch would send a file."""
    if isinstance(value, Tensor):
        return _Array(value.detach().cpu().numpy())
    if isinstance(value, VisualTokens):
        features = {name: _packed(x) for name, x in value.features.items()}
        return _Visual(_packed(value.tokens), value.frame_tokens, features)
    if type(value) in (tuple, list):
        return type(value)(_packed(x) for x in value)
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, _Array):
        return torch.from_numpy(value.values)
    if isinstance(value, _Visual):
        features = {name: _unpacked(x) for name, x in value.features.items()}
        return VisualTokens(_unpacked(value.tokens), value.frame_tokens, features)
    if type(value) in (tuple, list):
        return type(value)(_unpacked(x) for x in value)
    return value


@dataclass(frozen=True)
class _Array:
    values: np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Visual:
    tokens: _Array
    frame_tokens: tuple[int, ...]
    features: Mapping[str, Any]
