"""In which order two stages meet a list of items: one after the other, or overlapped.

Both schedules have one signature and yield results in the order of the items, so a pipeline does
not know which one it runs under.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Middle = TypeVar("Middle")
Result = TypeVar("Result")

SCHEDULES = ("sequential", "parallel")
_POLL_S = 0.1


def run(
    schedule: str,
    items: Sequence[Item],
    first: Callable[[Item], Middle],
    second: Callable[[Item, Middle], Result],
    *,
    room: int,
) -> Iterator[Result]:
    """`second(item, first(item))` of every item, in order.

    Args:
        schedule: `sequential`, or `parallel`: `first` of later items in a thread of its own.
        room: how many results of `first` may wait; bounds memory.
    """
    if schedule == "sequential":
        return (second(item, first(item)) for item in items)
    if schedule == "parallel":
        return _parallel(items, first, second, room)
    raise ValueError(f"schedule {schedule!r} is none of {', '.join(SCHEDULES)}")


def _parallel(
    items: Sequence[Item],
    first: Callable[[Item], Middle],
    second: Callable[[Item, Middle], Result],
    room: int,
) -> Iterator[Result]:
    waiting: queue.Queue[tuple[Middle | None, BaseException | None]] = queue.Queue(room)
    stop = threading.Event()

    def put(entry: tuple[Middle | None, BaseException | None]) -> None:
        while not stop.is_set():
            try:
                waiting.put(entry, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def produce() -> None:
        for item in items:
            if stop.is_set():
                return
            try:
                made = first(item)
            except BaseException as error:  # noqa: BLE001  handed to the consumer, which raises it
                put((None, error))
                return
            put((made, None))

    producer = threading.Thread(target=produce, name="encoder")
    producer.start()
    try:
        for item in items:
            made, error = waiting.get()
            if error is not None:
                raise error
            yield second(item, made)  # type: ignore[arg-type]
    finally:
        # Also after an error, Ctrl-C or an abandoned iteration: the producer sees `stop` at its
        # next item or its next try to put, so joining it cannot hang.
        stop.set()
        producer.join()
