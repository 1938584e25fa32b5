"""Load scenarios: several clients at once, and the slowdown for each of them.

Where a scenario compares, it measures the idle server or a single client in the same run.
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
    """The settings of a scenario.

    Attributes:
        server: the server.
        texts: source of the clients' texts and questions.
        clients: number of clients.
        tokens: number of tokens of a long text.
        answer: number of tokens of an answer.
        seconds: duration of the scenario `mixed`.
        rate: short questions per second.
        pairs: for `book`, number of pairs of texts: one read alone and one with questions.
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
        """Return a client of this kind."""
        return Client(self.server, http, kind)


async def book(load: Load) -> Figures:
    """Compare short questions while a long text is read with the same on the idle server.

    The slowdown of reading is given in seconds and in the server's processor time. The latter
    includes the work for the questions, and other programs on the machine disturb it less.
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
    """Upload a text; return its tokens, the seconds, and the server's processor seconds."""
    before = load.server.cpu_seconds()
    _, tokens, seconds = await client.upload(load.texts.book(load.tokens))
    return {
        "tokens": tokens,
        "seconds": seconds,
        "work": load.server.cpu_seconds() - before,
    }


async def readers(load: Load) -> Figures:
    """Read texts of 0.5 to 1.5 times `tokens` tokens (20k to 60k by default) at once."""
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
    """Decode long answers about uploaded texts, one after another and all at once."""
    async with connections() as http:
        clients = [load.client(http, "decoder") for _ in range(load.clients)]
        ids = [(await client.upload(load.texts.book(load.tokens)))[0] for client in clients]

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
    """Return tokens per second while all answers are being decoded.

    This is the time from the latest first word to the earliest end of an answer. If there is no
    such time, the mean speed of an answer is returned.
    """
    begin = max(a.sent + (a.first or 0) for a in answers)
    end = min(a.sent + a.last for a in answers)
    speeds = [1 / a.per_token for a in answers if a.per_token]
    if end <= begin:
        return sum(speeds) / max(1, len(speeds))
    inside = [(min(end, a.sent + a.last) - begin) / (a.per_token or 1) for a in answers]
    return sum(inside) / (end - begin)


async def mixed(load: Load) -> Figures:
    """Send uploads with a question, chats and short questions at random times (open loop)."""
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
    """Return an HTTP client without a limit on connections, as many client machines have."""
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=None)


async def _short(load: Load, client: Client) -> list[Answer]:
    return [await client.ask(load.texts.question(), load.answer)]


async def _chat(load: Load, client: Client) -> list[Answer]:
    """Run a conversation of three turns with pauses between them."""
    messages: list[dict[str, str]] = []
    answers = []
    for _ in range(3):
        messages.append({"role": "user", "content": load.texts.question()})
        answers.append(await client.ask(messages, load.answer))
        messages.append({"role": "assistant", "content": answers[-1].text or "Yes."})
        await asyncio.sleep(load.texts.random.uniform(0.2, 1.0))
    return answers


async def _from_book(load: Load, client: Client) -> list[Answer]:
    """Upload a text, and ask a question about it."""
    document, _, _ = await client.upload(load.texts.book(load.tokens))
    return [await client.ask(load.texts.question(), load.answer, document)]


async def _until_done(
    done: asyncio.Task[Any], pause: float, ask: Callable[[], Awaitable[list[Answer]]]
) -> list[Answer]:
    """Ask every `pause` seconds in open loop until the task `done` ends; return the answers."""
    tasks = []
    while not done.done():
        tasks.append(asyncio.ensure_future(ask()))
        await asyncio.wait([done], timeout=pause)
    return [answer for some in await asyncio.gather(*tasks) for answer in some]


async def _stream(
    load: Load, end: float, rate: float, ask: Callable[[], Awaitable[list[Answer]]]
) -> list[Answer]:
    """Send requests as a Poisson process of this rate until `end`; return the answers."""
    tasks = []
    while (now := time.perf_counter()) < end:
        tasks.append(asyncio.ensure_future(ask()))
        await asyncio.sleep(min(load.texts.random.expovariate(rate), max(0.0, end - now)))
    return [answer for some in await asyncio.gather(*tasks) for answer in some]
