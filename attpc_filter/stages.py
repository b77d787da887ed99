"""Stages of a stream: threads joined by bounded queues, with one way to stop them all."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Generic, Self, TypeVar

from attpc_filter.staging import check_interrupted, interrupts_noted

T = TypeVar("T")
_TICK_S = 0.1


class Stopped(Exception):
    """The stream is being taken down: a stage that waits for its neighbour gives up."""


class _End:
    """Marks the end of a channel."""


class Stages:
    """The threads of one stream.

    An error in any stage stops all of them and is raised by :meth:`check` and at the end of the
    ``with`` block, in the thread that runs the stream.

    So is an interrupt (:func:`attpc_filter.staging.interrupts_noted`).
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._noted = ExitStack()

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread of its own."""

        def run() -> None:
            try:
                work()
            except Stopped:
                pass
            except BaseException as error:  # noqa: BLE001  raised again where it can be handled
                self._error = self._error or error
                self._stop.set()

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def channel(self, bound: int, kind: type[T]) -> "Channel[T]":
        """A queue between two stages that holds at most ``bound`` items."""
        return Channel(bound, self._stop, self.check)

    def check(self) -> None:
        """Raise the error of a stage that failed, or an interrupt that came."""
        check_interrupted()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._noted.enter_context(interrupts_noted())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._noted:
            self._stop.set()
            for thread in self._threads:
                thread.join()
            if error is None:
                self.check()


class Channel(Generic[T]):
    """A bounded queue; iterating over it ends when the other side calls :meth:`end`."""

    def __init__(self, bound: int, stop: threading.Event, check: Callable[[], None]) -> None:
        self._queue: queue.Queue[T | _End] = queue.Queue(bound)
        self._stop = stop
        self._check = check

    def put(self, item: T) -> None:
        """Hand an item on; waits while the channel is full."""
        self._put(item)

    def end(self) -> None:
        """Say that nothing more comes."""
        self._put(_End())

    def get(self) -> T:
        """Take an item; waits while the channel is empty."""
        item = self._get()
        if isinstance(item, _End):
            raise Stopped
        return item

    def __iter__(self) -> Iterator[T]:
        while not isinstance(item := self._get(), _End):
            yield item

    def _put(self, item: T | _End) -> None:
        while not self._stop.is_set():
            check_interrupted()
            try:
                self._queue.put(item, timeout=_TICK_S)
                return
            except queue.Full:
                continue
        self._check()
        raise Stopped

    def _get(self) -> T | _End:
        while not self._stop.is_set():
            check_interrupted()
            try:
                return self._queue.get(timeout=_TICK_S)
            except queue.Empty:
                continue
        self._check()
        raise Stopped
