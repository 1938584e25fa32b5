"""Each client has its turn in a lane."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any

import pytest

from inf_llm.serve.fair_queue import FairQueue


def _order(*clients: str) -> list[str]:
    """In which order what these clients ask for is done, if the first has one more before."""
    gate, done = threading.Event(), list[str]()

    async def go() -> None:
        lane = FairQueue("test")
        first = asyncio.create_task(lane.run(clients[0], lambda: gate.wait(20)))
        tasks = [
            asyncio.create_task(lane.run(client, functools.partial(done.append, f"{client}{at}")))
            for at, client in enumerate(clients)
        ]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *tasks)

    asyncio.run(go())
    return done


def test_each_clients_first_goes_before_anothers_second() -> None:
    assert _order("a", "a", "a", "b", "a", "c", "b") == ["b3", "c5", "a0", "b6", "a1", "a2", "a4"]


def test_what_one_client_asks_for_stays_in_order() -> None:
    assert _order(*"aaaa") == ["a0", "a1", "a2", "a3"]


def test_a_failure_is_of_what_failed() -> None:
    async def go() -> Any:
        lane = FairQueue("test")
        with pytest.raises(ZeroDivisionError):
            await lane.run("a", lambda: 1 / 0)
        return await lane.run("a", lambda: 5)

    assert asyncio.run(go()) == 5


def test_what_was_given_up_is_not_done() -> None:
    async def go() -> list[int]:
        lane, gate, done = FairQueue("test"), threading.Event(), list[int]()
        first = asyncio.create_task(lane.run("a", lambda: gate.wait(20)))
        second = asyncio.create_task(lane.run("a", lambda: done.append(2)))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        gate.set()
        await first
        await lane.run("a", lambda: done.append(3))
        return done

    assert asyncio.run(go()) == [3]
