"""What several clients do at once, and what it costs each of them.

Each scenario measures the idle server, or a client alone, in the same run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import httpx

from benchmark.load.client import Answer, Client
from benchmark.load.figures import by_kind, spread
from benchmark.load.server import Server
from benchmark.load.texts import Texts

Figures = dict[str, Any]


@dataclass(frozen=True)
class Load:
    """What a scenario is made of.

    Attributes:
        server: the server.
        texts: what clients say.
        clients: how many.
        tokens: of a long text.
        answer: tokens of an answer.
        seconds: how long requests are sent, where a scenario has no end of its own.
        rate: short questions per second.
        pairs: texts that are read alone and with questions, where a scenario compares them.
    """

    server: Server
    texts: Texts
    clients: int
    tokens: int
    answer: int
    seconds: float
    rate: float
    pairs: int = 1

    def client(self, http: httpx.AsyncClient, kind: str) -> Client:
        """A client."""
        return Client(self.server, http, kind)


async def book(load: Load) -> Figures:
    """Short questions while another client's text is read, against the idle server.

    How much longer the text takes is said in seconds, and in the time of processors, which other
    programs of the machine change less: the time that questions took of them while it was read.
    """
    async with connections() as http:
        asks, reads = load.client(http, "question"), load.client(http, "book")
        idle = [await asks.ask(load.texts.question(), load.answer) for _ in range(12)][2:]
        alone, beside, busy = [], [], list[Answer]()
        for _ in range(load.pairs):
            alone.append(await _read(load, reads))
            reading = asyncio.create_task(_read(load, reads))
            busy += await _until_done(reading, 1 / load.rate, lambda: _short(load, asks))
            beside.append(await reading)
    first, loaded = (spread(a.first for a in answers) for answers in (idle, busy))
    seconds, work = (
        [round(more[of] / less[of], 2) for less, more in zip(alone, beside, strict=True)]
        for of in ("seconds", "work")
    )
    return {
        "tokens": alone[0]["tokens"],
        "first word, idle": first,
        "first word, while a text is read": loaded,
        "times": {name: round(loaded[name] / first[name], 2) for name in first},
        "text alone, s": [round(each["seconds"], 2) for each in alone],
        "text, s": [round(each["seconds"], 2) for each in beside],
        "text, times": seconds,
        "text, times in processor time": work,
        "questions": len(busy),
    }


async def _read(load: Load, client: Client) -> dict[str, float]:
    """A text is read: its tokens, its seconds, and those of processors meanwhile."""
    before = load.server.cpu_seconds()
    _, tokens, seconds = await client.upload(load.texts.book(load.tokens))
    return {
        "tokens": tokens,
        "seconds": seconds,
        "work": load.server.cpu_seconds() - before,
    }


async def readers(load: Load) -> Figures:
    """Texts of 20k to 60k tokens (of `tokens` the half to 1.5 times) read at once."""
    count = load.clients
    async with connections() as http:
        texts = [
            load.texts.book(load.tokens // 2 + load.tokens * n // max(1, count - 1))
            for n in range(count)
        ]
        started = time.perf_counter()
        uploads = (load.client(http, "reader").upload(text) for text in texts)
        done = await asyncio.gather(*uploads)
        total = time.perf_counter() - started
    work = [tokens for _, tokens, _ in done]
    speed = sum(work) / total
    shares = [seconds * speed / (tokens * count) for _, tokens, seconds in done]
    return {
        "clients": count,
        "tokens": [min(work), max(work)],
        "tokens per second": round(speed),
        "seconds": [round(min(s for *_, s in done), 1), round(total, 1)],
        "times its fair share": {"worst": round(max(shares), 2), **spread(shares)},
    }


async def decoders(load: Load) -> Figures:
    """Clients that answer from texts they have read, at once and one after another."""
    async with connections() as http:
        clients = [load.client(http, "decoder") for _ in range(load.clients)]
        ids = [(await each.upload(load.texts.book(load.tokens)))[0] for each in clients]

        def ask(client: Client, document: str) -> Awaitable[Answer]:
            return client.ask("Go on with the text, word by word.", load.answer, document)

        pairs = list(zip(clients, ids, strict=True))
        alone = [await ask(*pair) for pair in pairs]
        at_once = list(await asyncio.gather(*(ask(*pair) for pair in pairs)))
    one = sum(a.tokens - 1 for a in alone) / sum(a.last - (a.first or 0) for a in alone)
    together = sum(1 / a.per_token for a in at_once if a.per_token)
    return {
        "clients": load.clients,
        "read": min(answer.prompt for answer in alone),
        "tokens": [answer.tokens for answer in at_once],
        "tokens per second, one at a time": round(one, 2),
        "tokens per second, at once": round(_at_once(at_once), 2),
        "sum of their speeds": round(together, 2),
        "times": round(_at_once(at_once) / one, 2),
        "same text": sum(a.text == b.text for a, b in zip(alone, at_once, strict=True)),
        "first word": spread(answer.first for answer in at_once),
    }


def _at_once(answers: list[Answer]) -> float:
    """Tokens per second from the last client's first word to the end of the first to end."""
    begin = max(a.sent + (a.first or 0) for a in answers)
    end = min(a.sent + a.last for a in answers)
    speeds = [1 / a.per_token for a in answers if a.per_token]
    if end <= begin:
        return sum(speeds) / max(1, len(speeds))
    inside = [(min(end, a.sent + a.last) - begin) / (a.per_token or 1) for a in answers]
    return sum(inside) / (end - begin)


async def mixed(load: Load) -> Figures:
    """Books, chats and short questions, in open loop; books one after another."""
    async with connections() as http:
        answers: list[Answer] = []
        end = time.perf_counter() + load.seconds
        kinds = (
            _stream(load, end, load.rate, lambda: _short(load, load.client(http, "question"))),
            _stream(load, end, load.rate / 4, lambda: _chat(load, load.client(http, "chat"))),
            _stream(load, end, load.rate / 10, lambda: _from_book(load, load.client(http, "book"))),
        )
        started = time.perf_counter()
        for some in await asyncio.gather(*kinds):
            answers += some
        seconds = time.perf_counter() - started
    return {
        **by_kind(answers),
        "tokens read per second": round(sum(a.prompt - a.cached for a in answers) / seconds),
        "tokens said per second": round(sum(a.tokens for a in answers) / seconds, 1),
        "peak memory": load.server.memory("VmHWM"),
        "memory at the end": load.server.memory(),
    }


SCENARIOS: dict[str, Callable[[Load], Coroutine[Any, Any, Figures]]] = {
    "book": book,
    "readers": readers,
    "decoders": decoders,
    "mixed": mixed,
}


def connections() -> httpx.AsyncClient:
    """Connections without end, as of many computers."""
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=None)


async def _short(load: Load, client: Client) -> list[Answer]:
    return [await client.ask(load.texts.question(), load.answer)]


async def _chat(load: Load, client: Client) -> list[Answer]:
    """Three turns of a conversation, with a moment of thought between them."""
    messages: list[dict[str, str]] = []
    answers = []
    for _ in range(3):
        messages.append({"role": "user", "content": load.texts.question()})
        answers.append(await client.ask(messages, load.answer))
        messages.append({"role": "assistant", "content": answers[-1].text or "Yes."})
        await asyncio.sleep(load.texts.random.uniform(0.2, 1.0))
    return answers


async def _from_book(load: Load, client: Client) -> list[Answer]:
    """A text, and a question about it."""
    document, _, _ = await client.upload(load.texts.book(load.tokens))
    return [await client.ask(load.texts.question(), load.answer, document)]


async def _until_done(
    done: asyncio.Task[Any], pause: float, ask: Callable[[], Awaitable[list[Answer]]]
) -> list[Answer]:
    """Answers to what is asked every `pause` seconds until something is done, in open loop."""
    asked = []
    while not done.done():
        asked.append(asyncio.ensure_future(ask()))
        await asyncio.wait([done], timeout=pause)
    return [answer for some in await asyncio.gather(*asked) for answer in some]


async def _stream(
    load: Load, end: float, rate: float, ask: Callable[[], Awaitable[list[Answer]]]
) -> list[Answer]:
    """Answers to requests that come at a rate, at times of their own, until `end`."""
    asked = []
    while (now := time.perf_counter()) < end:
        asked.append(asyncio.ensure_future(ask()))
        await asyncio.sleep(min(load.texts.random.expovariate(rate), max(0.0, end - now)))
    return [answer for some in await asyncio.gather(*asked) for answer in some]
