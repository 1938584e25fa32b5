"""Work in a separate thread, while the main thread shows its items and can stop the work.

The model runs in its own thread. Ctrl-C interrupts only the main thread, so it never breaks off a
forward pass. The end of the `with` block sets a flag, and the work then ends between two tokens or
chunks.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """The work ends because it was stopped."""


class Task:
    """Runs work in a thread and yields the items that the work emits, one by one.

    Use it in a `with` block: on exit, the work is stopped, and the thread is joined.

    Args:
        work: called with the task in a thread. It may call `emit`, and must often call `check` or
            `stopping`.

    Attributes:
        result: return value of the work, available after the last item.
    """

    def __init__(self, work: Callable[[Task], Any]) -> None:
        self.result: Any = None
        self._work = work
        self._items: queue.Queue[Any] = queue.Queue()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), daemon=True)

    def emit(self, item: Any) -> None:
        """Add an item to the queue that `__iter__` reads."""
        self._items.put(item)

    def stopping(self) -> bool:
        """Return whether the work must end."""
        return self._stop.is_set()

    def check(self, done: int = 0, total: int = 0) -> None:
        """Emit the progress of a reading.

        Raises:
            Stopped: the work must end.
        """
        if self._stop.is_set():
            raise Stopped
        self.emit((done, total))

    def __enter__(self) -> Task:
        try:
            self._thread.start()
        except BaseException:  # an interrupt while the thread starts
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._thread.join()
            except KeyboardInterrupt:  # the work ends by itself soon
                continue

    def __iter__(self) -> Iterator[Any]:
        while (item := self._items.get()) is not _END:
            yield item
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self.result = self._work(self)
        except BaseException as error:
            self._failure = error
        self._items.put(_END)


_END = object()
