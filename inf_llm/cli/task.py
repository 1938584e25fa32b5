"""Work in a thread beside the terminal, which shows it and can end it.

The model runs in a thread of its own, so that Ctrl-C, which reaches the main thread, never breaks
a feed off in the middle: the work is asked to end, and does so between two tokens or chunks.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """The work was asked to end."""


class Task:
    """Runs work in a thread and gives the items that it emits, one by one.

    Use it in a `with` block: on leaving, the work is asked to end, and waited for.

    Args:
        work: called with the task in a thread; it may `emit`, and must `check` or read `stopping`.

    Attributes:
        result: what the work returned, after the last item was taken.
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
        """Put an item where `__iter__` takes it."""
        self._items.put(item)

    def stopping(self) -> bool:
        """Whether the work shall end."""
        return self._stop.is_set()

    def check(self, done: int = 0, total: int = 0) -> None:
        """Emit the progress of a reading.

        Raises:
            Stopped: the work shall end.
        """
        if self._stop.is_set():
            raise Stopped
        self.emit((done, total))

    def __enter__(self) -> Task:
        try:
            self._thread.start()
        except BaseException:  # an interrupt, while it is waited for the thread to begin
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
            except KeyboardInterrupt:  # it ends as soon as it can
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
