"""Queues of work, such as tokenizing texts or reading files, in threads beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")


class FairQueue:
    """A thread that does one task at a time, one of each client in turn.

    So a client that sends many slow files delays each other client by one file only.

    Args:
        name: name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._waiting: OrderedDict[str, deque[tuple[Future[Any], Callable[[], Any]]]]
        self._waiting = OrderedDict()
        self._changed = threading.Lock()

    async def run(self, client: str, work: Callable[[], _T]) -> _T:
        """Run `work` for a client and return its result."""
        future: Future[_T] = Future()
        with self._changed:
            self._waiting.setdefault(client, deque()).append((future, work))
        self._thread.submit(self._do_next)
        return await asyncio.wrap_future(future)

    def _do_next(self) -> None:
        with self._changed:
            client, works = next(iter(self._waiting.items()))
            future, work = works.popleft()
        if future.set_running_or_notify_cancel():
            _settle(future, work)
        with self._changed:
            self._waiting.move_to_end(client)  # also behind clients that arrived meanwhile
            if not works:
                del self._waiting[client]


def _settle(future: Future[_T], work: Callable[[], _T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
