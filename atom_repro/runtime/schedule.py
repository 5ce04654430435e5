"""Schedules of a pipeline of stages over a list of items: sequential, or overlapped.

Both schedules have one signature and yield results in the order of the items, so a pipeline does
not depend on the schedule.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import Any, Protocol

Stages = Mapping[str, Callable[[Any], Any]]

SCHEDULES = ("sequential", "parallel")
_POLL_S = 0.1
_GRACE_S = 10.0


class Source(Protocol):
    """What the last stage takes its items from."""

    def __iter__(self) -> Iterator[Any]: ...

    def __next__(self) -> Any: ...

    def ready(self) -> bool:
        """Whether the next item, or the end, is there without waiting for another thread."""
        ...


def run(
    schedule: str,
    items: Sequence[Any],
    stages: Stages,
    *,
    queue_size: int,
    last: Callable[[Source], Iterator[Any]] | None = None,
) -> Iterator[Any]:
    """Yield the result of the last stage for every item, in order.

    An error of any stage is raised after the results of the items before it.

    Args:
        schedule: `sequential`, or `parallel`: every stage but the last in a thread of its own.
        stages: by the name of its thread, in order; each takes the result of the one before, the
            first an item. The last runs in the caller's thread.
        queue_size: how many results of a stage may wait for the next; bounds memory.
        last: a stage behind `stages`, in the caller's thread, that takes items as it can use them
            and yields its results.
    """
    if schedule == "sequential":
        if last is not None:
            return last(_InTurn(items, stages))
        return iter(_InTurn(items, stages))
    if schedule == "parallel":
        return _parallel(items, stages, queue_size, last)
    raise ValueError(f"schedule {schedule!r} is none of {', '.join(SCHEDULES)}")


class _InTurn:
    """All stages of an item when it is asked for."""

    def __init__(self, items: Sequence[Any], stages: Stages) -> None:
        self._results = (
            reduce(lambda value, stage: stage(value), stages.values(), item) for item in items
        )

    def __iter__(self) -> Iterator[Any]:
        return self._results

    def __next__(self) -> Any:
        return next(self._results)

    def ready(self) -> bool:
        return True


_END = object()


class _Handover:
    """Bounded queue from one stage to the next: results in order, then the end or an error.

    Args:
        stop: set when the pipeline ends early; neither side waits any longer.
    """

    def __init__(self, queue_size: int, stop: threading.Event) -> None:
        self._waiting: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(queue_size)
        self.stop = stop

    def put(self, result: Any, error: BaseException | None = None) -> None:
        """Add a result, waiting while the queue is full; drop it once the pipeline has stopped."""
        while not self.stop.is_set():
            try:
                self._waiting.put((result, error), timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def __iter__(self) -> Iterator[Any]:
        return self

    def ready(self) -> bool:
        return not self._waiting.empty()

    def __next__(self) -> Any:
        """The next result; raises the error of the stage before if it comes next."""
        while not self.stop.is_set():
            try:  # a signal that the system hands to another thread does not wake this one
                result, error = self._waiting.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # its traceback holds this frame, and all that the stage held
            if result is _END:
                break
            return result
        raise StopIteration


def _parallel(
    items: Sequence[Any],
    stages: Stages,
    queue_size: int,
    last: Callable[[Source], Iterator[Any]] | None,
) -> Iterator[Any]:
    stop = threading.Event()
    names, finish = list(stages), last
    if finish is None:
        finish = partial(map, stages[names.pop()])  # unlike a loop, it holds no finished result
    source: Any = items
    threads = []
    for name in names:
        handover = _Handover(queue_size, stop)
        # A daemon, so that a stage that blocks for good cannot keep an interrupted process alive.
        threads.append(
            threading.Thread(
                target=_produce, args=(source, stages[name], handover), name=name, daemon=True
            )
        )
        source = handover
    try:
        for thread in threads:
            thread.start()
        yield from finish(source)
    finally:
        # Also after an error, Ctrl-C or an abandoned iteration: a stage sees `stop` at its next
        # item or its next try to hand over. One that is blocked inside an item is left behind.
        stop.set()
        deadline = time.monotonic() + _GRACE_S
        for thread in threads:
            started = thread.ident is not None
            if started and thread is not threading.current_thread():  # collected as garbage there
                thread.join(max(0.0, deadline - time.monotonic()))


def _produce(source: Iterable[Any], stage: Callable[[Any], Any], handover: _Handover) -> None:
    """Hand the stage's result of every item of `source` over, then the end or the error."""
    try:
        for item in source:
            if handover.stop.is_set():
                return
            result = stage(item)
            del item  # not held while the next stage is waited for
            handover.put(result)
            del result
        handover.put(_END)
    except BaseException as error:  # noqa: BLE001  handed to the last stage, which raises it
        handover.put(None, error)
