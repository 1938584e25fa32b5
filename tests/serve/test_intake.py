"""What cannot be answered is refused before it waits: by its layout, its length, and its bytes."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from inf_llm.errors import ConfigError
from inf_llm.formats import DocumentText
from inf_llm.generation.prefix_cache import PrefixCache
from inf_llm.generation.room import Room
from inf_llm.serve import completions, intake, jobs
from inf_llm.serve.errors import ApiError
from inf_llm.serve.intake import Budget
from tests.serve.inprocess import CHAT, Local, local, occupied

BUDGET = 3_000_000


class Line:
    """100 bytes a token."""

    def of(self, tokens: int) -> int:
        return 100 * tokens

    def longest(self, budget: int) -> int:
        return budget // 100


@pytest.fixture
def small() -> Iterator[Local]:
    with local(memory_budget=BUDGET, answer_tokens=4) as running:
        yield running


@pytest.fixture
def busy(small: Local) -> Iterator[Local]:
    """A server whose model is at work until the test ends."""
    gate = occupied(small)
    yield small
    gate.set()


def test_a_budget_has_both_figures() -> None:
    budget = Budget.of(1000, Line(), 5)  # type: ignore[arg-type]
    budget.check(9)  # and one of the answer
    with pytest.raises(ApiError, match=r"10 tokens.* 1\.1 KB .*is 1\.0 KB: .*at most 9") as caught:
        budget.check(10)
    error = caught.value.body()["error"]
    assert caught.value.status == 413
    assert (error["kept"], error["bytes"], error["memory_budget"]) == (False, 1100, 1000)
    with pytest.raises(ConfigError, match=r"is 1\.0 KB, but 11 tokens take 1\.1 KB"):
        Budget.of(1000, Line(), 11)  # type: ignore[arg-type]


def test_where_nothing_is_known_nothing_is_refused() -> None:
    Budget.of(1, None, 10**6).check(10**9)


def test_what_is_wrong_does_not_wait(busy: Local) -> None:
    busy.app.engine.tokenizer.chat_template = None
    long = "x" * 100_000
    for reply, status in (
        (busy.post("/v1/completions", {"model": busy.model, "prompt": [10**6]}), 400),
        (busy.post("/v1/documents", {"text": long}), 413),
        (busy.ask(long), 413),
        (busy.ask(long, stream=True), 413),
    ):
        assert reply.status_code == status
        assert reply.headers["content-type"].startswith("application/json")
    assert busy.app.worker.waiting == 0


def test_a_refused_text_leaves_what_others_have(small: Local) -> None:
    text = "A story. " * 60
    first = small.ask(text).json()["choices"]
    held = small.app.engine.pool.bytes
    reply = small.post("/v1/documents", {"text": "y" * 100_000})
    assert reply.json()["error"]["code"] == "memory_budget_exceeded"
    assert reply.json()["error"]["bytes"] > BUDGET
    assert small.app.engine.pool.bytes == held
    again = small.ask(text).json()
    assert again["choices"] == first
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 400


def test_a_document_is_told_what_it_takes(small: Local) -> None:
    reply = small.post("/v1/documents", {"text": "A story. " * 60})
    found = reply.json()
    assert reply.status_code == 201
    assert found["kept"] is True
    assert found["bytes"] <= BUDGET
    assert found["bytes"] >= small.app.engine.pool.bytes // 2


def test_a_cut_prompt_fits_the_budget() -> None:
    with local(2**31 - 1, "middle", memory_budget=BUDGET, answer_tokens=4) as server:
        usage = server.ask("x" * 100_000).json()["usage"]
        assert usage["prompt_tokens_details"]["cut_tokens"] > 0
        assert server.app.intake._budget.needs.of(usage["total_tokens"]) <= BUDGET


def test_an_answer_ends_where_the_budget_does(small: Local) -> None:
    budget = small.app.intake._budget
    text = "x" * (budget.tokens - 3)
    body = small.ask(text, max_tokens=1000).json()
    assert body["usage"]["completion_tokens"] == 3
    assert body["choices"][0]["finish_reason"] == "length"


def test_a_long_text_has_a_lane_of_its_own(small: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "LONG", 100)
    gate, laid_out = threading.Event(), small.app.intake._prompts.of_question

    def slow(question: Any, document: Any) -> Any:
        if len(question.messages[0]["content"]) >= 100:
            gate.wait(20)
        return laid_out(question, document)

    monkeypatch.setattr(small.app.intake._prompts, "of_question", slow)
    waiting = threading.Thread(target=small.ask, args=("x" * 100,))
    waiting.start()
    started = time.monotonic()
    assert small.ask("short").status_code == 200
    assert time.monotonic() - started < 15
    gate.set()
    waiting.join()


def test_the_files_of_a_client_wait_for_one_of_another(
    small: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, gate = list[str](), threading.Event()

    def slow(content: bytes, name: str) -> DocumentText:
        gate.wait(20)
        read.append(name)
        return DocumentText(content.decode())

    async def send(client: str, name: str) -> int:
        transport = httpx.ASGITransport(small.app, client=(client, 1))
        body = {"file": base64.b64encode(b"A text.").decode(), "name": name}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as sender:
            return (await sender.post("/v1/documents", json=body)).status_code

    async def go() -> list[int]:
        sent = [asyncio.create_task(send("10.0.0.1", f"a{number}")) for number in range(4)]
        await asyncio.sleep(0.2)
        sent.append(asyncio.create_task(send("10.0.0.2", "b")))
        await asyncio.sleep(0.2)
        gate.set()
        return await asyncio.gather(*sent)

    monkeypatch.setattr(intake, "document_of", slow)
    assert asyncio.run(go()) == [201] * 5
    assert read.index("b") == 1


def test_a_stream_that_waits_says_so(small: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completions, "PULSE_SECONDS", 0.1)
    occupied(small, 0.5)
    for reply in (
        small.ask(stream=True),
        small.post("/v1/documents", {"text": "A text.", "stream": True}),
    ):
        assert reply.text.startswith(": accepted\n\n")
        assert reply.text.endswith("data: [DONE]\n\n")
        occupied(small, 0.5)
    assert small.ask(stream=True).text.count(": waiting\n\n") >= 2


def test_texts_that_fit_one_by_one_are_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they would take more than the budget, and do while nothing holds one up."""

    def most(waits: bool) -> float:
        taken = [0.0]
        fits = Room.fits

        def noted(room: Room, kept: Any) -> bool:
            found = fits(room, kept)
            taken[0] = max(taken[0], room.bytes / (room.budget or 1))
            return found

        async def both(server: Local) -> list[int]:
            async with server.client() as client:
                bodies = [{"text": letter * 1900} for letter in "xy"]
                sent = (client.post("/v1/documents", json=body) for body in bodies)
                return [reply.status_code for reply in await asyncio.gather(*sent)]

        with local() as large:
            document = large.post("/v1/documents", {"text": "x" * 1900}).json()
        budget = document["bytes"] * 3 // 2
        with monkeypatch.context() as patch, local(memory_budget=budget) as small:
            patch.setattr(Room, "fits", noted)
            if not waits:
                patch.setattr(PrefixCache, "has_room", lambda self, *given: True)
            assert asyncio.run(both(small)) == [201, 201]
        return taken[0]

    assert most(waits=True) <= 1
    assert most(waits=False) > 1


def test_a_text_that_needs_all_the_room_is_not_passed_by_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By others that come all the time, and go on coming."""
    monkeypatch.setattr(jobs, "PATIENCE", 0.3)

    async def go(server: Local) -> int:
        async with server.client() as client:
            read = asyncio.Event()

            async def come_and_go(number: int) -> int:
                count = 0
                while not read.is_set():
                    body = server.question(f"{number} {count} " * 9, max_tokens=4)
                    assert (await client.post(CHAT, json=body)).status_code == 200
                    count += 1
                return count

            others = [asyncio.create_task(come_and_go(number)) for number in range(3)]
            await asyncio.sleep(0.2)
            reply = await client.post("/v1/documents", json={"text": "x" * 1900})
            read.set()
            assert reply.status_code == 201
            return sum(await asyncio.gather(*others))

    with local() as large:
        document = large.post("/v1/documents", {"text": "x" * 1900}).json()
    with local(memory_budget=int(document["bytes"] * 1.02)) as small:
        assert asyncio.run(asyncio.wait_for(go(small), 60)) > 5
