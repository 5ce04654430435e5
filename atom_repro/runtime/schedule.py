"""Schedules of a two-stage pipeline over a list of items: sequential, or overlapped.

Both schedules have one signature and yield results in the order of the items, so a pipeline does
not depend on the schedule.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Intermediate = TypeVar("Intermediate")
Result = TypeVar("Result")

SCHEDULES = ("sequential", "parallel")
_POLL_S = 0.1
_GRACE_S = 10.0


def run(
    schedule: str,
    items: Sequence[Item],
    first: Callable[[Item], Intermediate],
    second: Callable[[Item, Intermediate], Result],
    *,
    queue_size: int,
) -> Iterator[Result]:
    """Yield `second(item, first(item))` of every item, in order.

    An error of either stage is raised after the results of the items before it.

    Args:
        schedule: `sequential`, or `parallel`: `first` of later items in a thread of its own.
        queue_size: how many results of `first` may wait; bounds memory.
    """
    if schedule == "sequential":
        return (second(item, first(item)) for item in items)
    if schedule == "parallel":
        return _parallel(items, first, second, queue_size)
    raise ValueError(f"schedule {schedule!r} is none of {', '.join(SCHEDULES)}")


class _Handover(Generic[Intermediate]):
    """Bounded queue from the first stage to the second: results in order, or a final error."""

    def __init__(self, queue_size: int) -> None:
        self._waiting: queue.Queue[tuple[Intermediate | None, BaseException | None]] = queue.Queue(
            queue_size
        )
        self.stop = threading.Event()

    def put(self, result: Intermediate | None, error: BaseException | None = None) -> None:
        """Add a result, waiting while the queue is full; drop it once the second stage stopped."""
        while not self.stop.is_set():
            try:
                self._waiting.put((result, error), timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def get(self) -> Intermediate:
        """Return the next result; raise the first stage's error if it comes next."""
        while True:  # a signal that the system hands to another thread does not wake this one
            try:
                result, error = self._waiting.get(timeout=_POLL_S)
                break
            except queue.Empty:
                continue
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame, and all that the stage held
        return result  # type: ignore[return-value]


def _parallel(
    items: Sequence[Item],
    first: Callable[[Item], Intermediate],
    second: Callable[[Item, Intermediate], Result],
    queue_size: int,
) -> Iterator[Result]:
    handover: _Handover[Intermediate] = _Handover(queue_size)

    def produce() -> None:
        try:
            for item in items:
                if handover.stop.is_set():
                    return
                handover.put(first(item))
        except BaseException as error:  # noqa: BLE001  handed to the consumer, which raises it
            handover.put(None, error)

    # A daemon, so that a first stage that blocks for good cannot keep an interrupted process alive.
    producer = threading.Thread(target=produce, name="encoder", daemon=True)
    try:
        producer.start()
        for item in items:
            yield second(item, handover.get())
    finally:
        # Also after an error, Ctrl-C or an abandoned iteration: the producer sees `stop` at its
        # next item or its next try to put. One that is blocked inside an item is left behind.
        handover.stop.set()
        started = producer.ident is not None
        if started and producer is not threading.current_thread():  # collected as garbage there
            producer.join(_GRACE_S)
