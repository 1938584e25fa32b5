"""A text that is read, and those who watch."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from inf_llm.serve import uploads
from inf_llm.serve.documents import Document
from inf_llm.serve.errors import ApiError
from inf_llm.serve.jobs import Read, Reading
from inf_llm.serve.uploads import Failures, Reader


class Exchange:
    """Gives what a test puts."""

    def __init__(self) -> None:
        self.updates: asyncio.Queue[Any] = asyncio.Queue()
        self.cancelled = False

    async def next(self) -> Any:
        update = await self.updates.get()
        if isinstance(update, ApiError):
            raise update
        return update

    def cancel(self) -> None:
        self.cancelled = True


async def commit(read: Read) -> Document:
    read.document.tokens = 7
    return read.document


def watched(*updates: Any) -> tuple[list[str], list[str]]:
    """What two clients see, the second from the second update on."""

    async def go() -> tuple[list[str], list[str]]:
        exchange = Exchange()
        reader = Reader(Document("text", "name"), exchange, commit)  # type: ignore[arg-type]

        async def watch() -> list[str]:
            return [each.decode() async for each in reader.events()]

        watches = []
        for update in updates:
            if len(watches) < 2:
                watches.append(asyncio.create_task(watch()))
            await asyncio.sleep(0.01)
            exchange.updates.put_nowait(update)
        await asyncio.sleep(0.01)
        return tuple(await asyncio.gather(*watches))  # type: ignore[return-value]

    return asyncio.run(go())


def test_all_see_progress_and_the_end() -> None:
    document = Document("text", "name", "doc-1")
    first, second = watched(Reading(1, 9), Reading(5, 9), Read(document, None))
    for told in (first, second):
        assert told[0] == ": accepted\n\n"
        assert ['"read": 1' in told[1], '"read": 5' in told[2]] == [True, True]
        assert '"tokens": 7' in told[-2]
        assert told[-1] == "data: [DONE]\n\n"


def test_all_see_the_error() -> None:
    for told in watched(Reading(1, 9), ApiError(503, "out of memory")):
        assert "out of memory" in told[-1]


def test_who_waits_for_the_end_gets_it() -> None:
    async def go() -> None:
        exchange, ended = Exchange(), []
        reader = Reader(Document("text", "name"), exchange, commit)  # type: ignore[arg-type]
        reader.when_done(lambda: ended.append(True))
        assert reader.described()["status"] == "reading"
        await reader.stop()
        assert exchange.cancelled
        exchange.updates.put_nowait(ApiError(503, "the request was cancelled"))
        with pytest.raises(ApiError, match="cancelled"):
            await reader.done()
        assert ended == [True]

    asyncio.run(go())


def test_what_was_read_before_it_was_stopped_is_no_document() -> None:
    committed: list[Read] = []

    async def note(read: Read) -> Document:
        committed.append(read)
        return read.document

    async def go() -> None:
        exchange = Exchange()
        reader = Reader(Document("text", "name"), exchange, note)  # type: ignore[arg-type]
        exchange.updates.put_nowait(Read(reader.document, None))
        await reader.stop()
        with pytest.raises(ApiError, match="cancelled"):
            await reader.done()

    asyncio.run(go())
    assert not committed


def test_what_is_on_its_way_is_one_when_stopping_ends() -> None:
    committed: list[Read] = []

    async def slow(read: Read) -> Document:
        await asyncio.sleep(0.05)
        committed.append(read)
        return read.document

    async def go() -> None:
        exchange = Exchange()
        reader = Reader(Document("text", "name"), exchange, slow)  # type: ignore[arg-type]
        exchange.updates.put_nowait(Read(reader.document, None))
        await asyncio.sleep(0.01)
        await reader.stop()
        assert committed

    asyncio.run(go())


@pytest.mark.parametrize("error", [ApiError(503, "cancelled"), ZeroDivisionError("a fault")])
def test_a_failure_that_no_client_waits_for(error: Exception, caplog: Any) -> None:
    async def go() -> None:
        exchange = Exchange()
        Reader(Document("text", "name"), exchange, commit)  # type: ignore[arg-type]

        async def fail() -> None:
            raise error

        exchange.next = fail  # type: ignore[method-assign]
        await asyncio.sleep(0.01)

    asyncio.run(go())
    gc.collect()
    assert "never retrieved" not in caplog.text
    assert ("a fault" in caplog.text) == isinstance(error, ZeroDivisionError)


def test_failures_are_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_FAILURES", 2)

    async def go() -> None:
        failures = Failures()
        for name in ("doc-1", "doc-2", "doc-3"):
            exchange = Exchange()
            reader = Reader(Document("text", "name", name), exchange, commit)  # type: ignore[arg-type]
            exchange.updates.put_nowait(ApiError(503, "out of memory"))
            with pytest.raises(ApiError):
                await reader.done()
            failures.note(reader)
        assert [each.name for each in failures.all()] == ["doc-2", "doc-3"]
        told = failures.all()[0].body()
        assert (told["status"], told["error"]["message"]) == ("failed", "out of memory")
        assert (failures.forget("doc-3"), failures.forget("doc-3")) == (True, False)

    asyncio.run(go())


def test_what_was_stopped_has_not_failed() -> None:
    async def go() -> None:
        exchange = Exchange()
        reader = Reader(Document("text", "name"), exchange, commit)  # type: ignore[arg-type]
        await reader.stop()
        exchange.updates.put_nowait(ApiError(503, "the request was cancelled"))
        with pytest.raises(ApiError):
            await reader.done()
        assert reader.failure is None

    asyncio.run(go())
