"""Jobs worked off in this process, or spread over a Ray cluster: the same items in both.

On a cluster there is an actor for each GPU, or for every two CPUs. One that has finished a job gets
the next. A job whose actor died is given to another one, once.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from inf_llm.cluster.connection import connect
from inf_llm.errors import InfLLMError, reason
from inf_llm.optional import need

J = TypeVar("J")
Work = Callable[[J, int], Iterator[Any]]
"""Gives the items of a job, one by one, the first so many left out: they were given already."""
Make = Callable[[], Work[J]]
"""Makes what works, with a model in it; a function of a module, for an actor imports it."""

TRIES = 2
"""Actors that a job is given to."""


@dataclass(frozen=True)
class Failure:
    """A job ended early.

    Attributes:
        reason: why, in one line.
    """

    reason: str


def here(jobs: Iterable[J], make: Make[J]) -> Iterator[tuple[J, Any]]:
    """Each job with each of its items, one job after another in this process.

    The last item of a job may be a `Failure`, with what an `InfLLMError` said; the next one begins.
    """
    work = make()
    for job in jobs:
        try:
            for item in work(job, 0):
                yield job, item
        except InfLLMError as error:
            yield job, Failure(str(error))


def on_ray(jobs: Iterable[J], make: Make[J], address: str | None = None) -> Iterator[tuple[J, Any]]:
    """The same on a cluster, in the order in which items are ready.

    Args:
        jobs: taken one by one; they go to another process.
        make: called in every actor.
        address: of the cluster; None for the one that Ray finds, or else this machine alone.

    Raises:
        MissingExtraError: ray is not installed.
        SettingsError: there is no such cluster.
        InfLLMError: an actor could not be made.
    """
    ray = need("ray", "--engine ray", extra="ray")
    connect(ray, address)
    try:
        spread = _Spread(ray, iter(jobs), make)
        with contextlib.closing(spread):
            yield from spread.items()
    except ray.exceptions.RayError as error:
        raise InfLLMError(f"no actor could be made: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """What an error that came through Ray says: its cause where that is known, else its end."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, InfLLMError):
        return str(cause)
    if isinstance(cause, BaseException):
        return f"unexpected {type(cause).__name__}: {reason(cause)}"
    return str(error).strip().splitlines()[-1].strip()


class _Actor(Generic[J]):
    """What runs in a process of the cluster.

    Args:
        make: see `on_ray`.
        folder: the driver's, so that a path means the same here, where there is such a folder.
    """

    def __init__(self, make: Make[J], folder: str) -> None:
        self._make, self._folder = make, folder

    def start(self) -> None:
        """Make what works."""
        with contextlib.suppress(OSError):
            os.chdir(self._folder)
        self._work = self._make()

    def items(self, job: J, given: int) -> Iterator[Any]:
        """See `Work`."""
        yield from self._work(job, given)


@dataclass
class _Held(Generic[J]):
    """A job, and how it goes.

    Attributes:
        job: what is done.
        given: items that were passed on.
        tries: actors that had it.
    """

    job: J
    given: int = 0
    tries: int = 0


class _Spread(Generic[J]):
    """Actors and what each of them has.

    Args:
        ray: the package.
        jobs: what there is to do.
        make: see `on_ray`.
    """

    def __init__(self, ray: Any, jobs: Iterator[J], make: Make[J]) -> None:
        self._ray, self._jobs, self._make = ray, jobs, make
        self._again: deque[_Held[J]] = deque()
        self._starting: dict[Any, Any] = {}  # what `start` gives: the actor
        self._streams: dict[Any, tuple[Any, _Held[J]]] = {}  # items: the actor, and its job
        self._idle: list[Any] = []
        self._actors: list[Any] = []
        gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        self._wanted: dict[str, int] = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        self._most = gpus or max(1, cpus // 2)

    def items(self) -> Iterator[tuple[J, Any]]:
        """See `on_ray`."""
        while len(self._actors) < self._most and (held := self._new()) is not None:
            self._again.append(held)
            self._start()
        while self._starting or self._streams:
            # A stream is ready when its next item is, or when it has no more.
            waited = [*self._starting, *self._streams]
            ready = self._ray.wait(waited, num_returns=1, fetch_local=False)[0][0]
            if ready in self._starting:
                self._ray.get(ready)
                self._give(self._starting.pop(ready))
            else:
                yield from self._next(ready)

    def close(self) -> None:
        """End the actors, whatever they do."""
        while self._actors:
            self._ray.kill(self._actors.pop())

    def _start(self) -> None:
        actor = self._ray.remote(**self._wanted)(_Actor).remote(self._make, str(Path.cwd()))
        self._actors.append(actor)
        self._starting[actor.start.remote()] = actor

    def _give(self, actor: Any) -> None:
        """The next job, or one that an actor died of; without any the actor is idle."""
        held = self._again.popleft() if self._again else self._new()
        if held is None:
            self._idle.append(actor)
            return
        held.tries += 1
        stream = actor.items.options(num_returns="streaming").remote(held.job, held.given)
        self._streams[stream] = actor, held

    def _new(self) -> _Held[J] | None:
        for job in self._jobs:
            return _Held(job)
        return None

    def _next(self, stream: Any) -> Iterator[tuple[J, Any]]:
        """An item, or what came instead of it."""
        actor, held = self._streams[stream]
        try:
            item = self._ray.get(next(stream))
        except StopIteration:
            self._ended(stream)
        except self._ray.exceptions.RayTaskError as error:
            self._ended(stream)
            yield held.job, Failure(_said(error))
        except self._ray.exceptions.RayError as error:
            del self._streams[stream]
            yield from self._died(actor, held, error)
        else:
            held.given += 1
            yield held.job, item

    def _ended(self, stream: Any) -> None:
        """A job has no more items: its actor gets the next."""
        actor, _ = self._streams.pop(stream)
        self._give(actor)

    def _died(self, actor: Any, held: _Held[J], error: Exception) -> Iterator[tuple[J, Any]]:
        """An actor is gone, or what it made: another one takes its place."""
        self._actors.remove(actor)
        self._ray.kill(actor)
        if held.tries < TRIES:
            self._again.append(held)
        else:
            said = _said(error)
            yield held.job, Failure(f"{TRIES} actors died of it; Ray says of the last: {said}")
        if self._idle:
            self._give(self._idle.pop())
        else:
            self._start()
