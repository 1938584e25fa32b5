"""Jobs that run in this process or on a Ray cluster, and yield the same items in both.

A cluster has one actor per GPU, or one per two CPUs if it has no GPU. An actor that has finished a
job gets the next job. If an actor dies, its job is given to another actor, once.
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
"""Function of a job and a count: it yields the items of the job that follow the first `count`."""
Make = Callable[[], Work[J]]
"""Function that makes a `Work` and its model; defined in a module, since actors import it."""

TRIES = 2
"""Number of actors that a job is given to before it fails."""


@dataclass(frozen=True)
class Failure:
    """The last item of a job that ended early.

    Attributes:
        reason: the error, in one line.
    """

    reason: str


def here(jobs: Iterable[J], make: Make[J]) -> Iterator[tuple[J, Any]]:
    """Yield each job with each of its items, one job after another, in this process.

    The last item of a job may be a `Failure` with the message of an `InfLLMError`; the next job
    then begins.
    """
    work = make()
    for job in jobs:
        try:
            for item in work(job, 0):
                yield job, item
        except InfLLMError as error:
            yield job, Failure(str(error))


def on_ray(jobs: Iterable[J], make: Make[J], address: str | None = None) -> Iterator[tuple[J, Any]]:
    """Yield each job with each of its items from a cluster, in the order in which they are ready.

    Args:
        jobs: taken one by one, and sent to other processes.
        make: called in every actor.
        address: address of the cluster; None for the cluster that Ray finds, or else a cluster on
            this machine alone.

    Raises:
        MissingExtraError: ray is not installed.
        SettingsError: there is no cluster at the address.
        InfLLMError: an actor could not be started.
    """
    ray = need("ray", "--engine ray", extra="ray")
    connect(ray, address)
    try:
        spread = _Spread(ray, iter(jobs), make)
        with contextlib.closing(spread):
            yield from spread.items()
    except ray.exceptions.RayError as error:
        raise InfLLMError(f"no actor could be made: {_message(error)}") from error


def _message(error: BaseException) -> str:
    """Return the message of an error from Ray: that of its cause, or else its last line."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, InfLLMError):
        return str(cause)
    if isinstance(cause, BaseException):
        return f"unexpected {type(cause).__name__}: {reason(cause)}"
    return str(error).strip().splitlines()[-1].strip()


class _Actor(Generic[J]):
    """Actor that runs jobs in a process of the cluster.

    Args:
        make: see `on_ray`.
        folder: the driver's working directory. The actor uses it too if it exists there, so that
            relative paths mean the same.
    """

    def __init__(self, make: Make[J], folder: str) -> None:
        self._make, self._folder = make, folder

    def start(self) -> None:
        """Make the `Work`, with its model."""
        with contextlib.suppress(OSError):
            os.chdir(self._folder)
        self._work = self._make()

    def items(self, job: J, given: int) -> Iterator[Any]:
        """Yield the items of a job; see `Work`."""
        yield from self._work(job, given)


@dataclass
class _Held(Generic[J]):
    """A job and its progress.

    Attributes:
        job: the job.
        given: number of items that were yielded.
        tries: number of actors that got the job.
    """

    job: J
    given: int = 0
    tries: int = 0


class _Spread(Generic[J]):
    """The actors, and the job of each.

    Args:
        ray: the module `ray`.
        jobs: the jobs to do.
        make: see `on_ray`.
    """

    def __init__(self, ray: Any, jobs: Iterator[J], make: Make[J]) -> None:
        self._ray, self._jobs, self._make = ray, jobs, make
        self._again: deque[_Held[J]] = deque()
        self._starting: dict[Any, Any] = {}  # result of `start`: the actor
        self._streams: dict[Any, tuple[Any, _Held[J]]] = {}  # item stream: the actor, its job
        self._idle: list[Any] = []
        self._actors: list[Any] = []
        gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        self._wanted: dict[str, int] = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        self._most = gpus or max(1, cpus // 2)

    def items(self) -> Iterator[tuple[J, Any]]:
        """Yield jobs and their items; see `on_ray`."""
        while len(self._actors) < self._most and (held := self._new()) is not None:
            self._again.append(held)
            self._start()
        while self._starting or self._streams:
            # A stream is ready when its next item is ready, or when it has ended.
            waited = [*self._starting, *self._streams]
            ready = self._ray.wait(waited, num_returns=1, fetch_local=False)[0][0]
            if ready in self._starting:
                self._ray.get(ready)
                self._give(self._starting.pop(ready))
            else:
                yield from self._next(ready)

    def close(self) -> None:
        """Kill all actors, also those that work."""
        while self._actors:
            self._ray.kill(self._actors.pop())

    def _start(self) -> None:
        actor = self._ray.remote(**self._wanted)(_Actor).remote(self._make, str(Path.cwd()))
        self._actors.append(actor)
        self._starting[actor.start.remote()] = actor

    def _give(self, actor: Any) -> None:
        """Give an actor a job whose actor died, or the next job; without one the actor is idle."""
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
        """Yield the next item of a stream, or a failure in its place, or nothing at its end."""
        actor, held = self._streams[stream]
        try:
            item = self._ray.get(next(stream))
        except StopIteration:
            self._ended(stream)
        except self._ray.exceptions.RayTaskError as error:
            self._ended(stream)
            yield held.job, Failure(_message(error))
        except self._ray.exceptions.RayError as error:
            del self._streams[stream]
            yield from self._died(actor, held, error)
        else:
            held.given += 1
            yield held.job, item

    def _ended(self, stream: Any) -> None:
        """Remove the stream of a finished job, and give the actor its next job."""
        actor, _ = self._streams.pop(stream)
        self._give(actor)

    def _died(self, actor: Any, held: _Held[J], error: Exception) -> Iterator[tuple[J, Any]]:
        """Replace an actor that died or whose item was lost.

        Its job is given to another actor, or fails after `TRIES` actors.
        """
        self._actors.remove(actor)
        self._ray.kill(actor)
        if held.tries < TRIES:
            self._again.append(held)
        else:
            message = _message(error)
            yield held.job, Failure(f"{TRIES} actors died of it; Ray says of the last: {message}")
        if self._idle:
            self._give(self._idle.pop())
        else:
            self._start()
