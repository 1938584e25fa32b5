"""Clients of all kinds over a long time, and checks of the server's replies.

Some clients ask, some upload, some disconnect early, some send malformed requests. A few questions,
the canaries, have known answers: those of the idle server. In float32 the load of other clients
must not change these answers.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmark.load.server import Server
from benchmark.load.texts import Texts

CHAT, COMPLETIONS, DOCUMENTS = "/v1/chat/completions", "/v1/completions", "/v1/documents"
ASK = "What is the pass key?"
BUSY = 429, 503
"""Status codes of a busy server. They are counted, and are not errors."""
CANARIES = 3


class WrongAnswerError(Exception):
    """The server gave a wrong reply."""


class BusyError(Exception):
    """The server refused a request as busy; the client may retry later."""


@dataclass
class Tally:
    """Counters by kind of client.

    Attributes:
        requests: number of visits.
        busy: number of refusals by a busy server.
        failures: number of broken connections, by kind and type of error.
        wrong: descriptions of wrong replies.
    """

    requests: Counter[str] = field(default_factory=Counter)
    busy: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Canary:
    """A question with a known answer.

    Attributes:
        body: body of the request.
        answer: the idle server's answer.
    """

    body: dict[str, Any]
    answer: str


class Soak:
    """A soak test of one server, as the module docstring describes.

    Args:
        server: the server; it has no other clients.
        http: connections to the server.
        texts: source of the clients' texts and questions.
        tokens: number of tokens of the longest text.
    """

    def __init__(self, server: Server, http: httpx.AsyncClient, texts: Texts, tokens: int) -> None:
        self._server, self._http, self._texts, self._tokens = server, http, texts, tokens
        self._random: random.Random = texts.random
        self._canaries: list[Canary] = []
        self.tally = Tally()

    async def begin(self) -> None:
        """Record the idle server's answers to the canary questions."""
        self._canaries = [await self._canary(number) for number in range(CANARIES)]

    async def run(self, seconds: float, clients: int) -> None:
        """Run `clients` clients that send requests for `seconds` seconds."""
        end = time.monotonic() + seconds
        await asyncio.gather(*(self._client(end) for _ in range(clients)))

    async def _client(self, end: float) -> None:
        kinds, weights = zip(*KINDS.items(), strict=True)
        while time.monotonic() < end:
            (kind,) = self._random.choices(kinds, weights)
            await self._count(kind.__name__, kind(self))
            await asyncio.sleep(self._random.expovariate(4))

    async def _count(self, kind: str, visit: Awaitable[None]) -> None:
        self.tally.requests[kind] += 1
        try:
            await visit
        except BusyError:
            self.tally.busy[kind] += 1
        except WrongAnswerError as error:
            self.tally.wrong.append(f"{kind}: {error}")
        except httpx.HTTPError as error:
            self.tally.failures[f"{kind}: {type(error).__name__}"] += 1

    async def _canary(self, number: int) -> Canary:
        """Upload a text with a key, ask for the key, and record the answer."""
        key = 10_000 + 7_919 * number
        text = f"{self._text(0.4)} The pass key is {key}. Remember it. {key} is the pass key. "
        document = await self._send("POST", DOCUMENTS, {"text": text + self._text(0.4)}, 201)
        body = self._question(ASK, max_tokens=12, document=document["id"])
        return Canary(body, self._content(await self._send("POST", CHAT, body, 200)))

    def _text(self, share: float = 1.0) -> str:
        return self._texts.book(int(share * self._random.uniform(0.2, 1.0) * self._tokens))

    def _question(self, text: str, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": text}]
        return {"model": self._server.model, "messages": messages, "max_tokens": 6} | more

    @staticmethod
    def _content(reply: dict[str, Any]) -> str:
        return str(reply["choices"][0]["message"]["content"])

    async def _send(self, method: str, path: str, body: Any, expected: int) -> dict[str, Any]:
        reply = await self._http.request(method, f"{self._server.address}{path}", json=body)
        self._check(reply, expected)
        return dict(reply.json())

    @staticmethod
    def _check(reply: httpx.Response, *expected: int) -> None:
        if reply.status_code in expected:
            return
        if reply.status_code in BUSY:
            raise BusyError
        raise WrongAnswerError(f"{reply.status_code} instead of {expected}: {reply.text[:200]}")

    async def known(self) -> None:
        """Ask a canary question and compare the answer with the known one."""
        canary = self._random.choice(self._canaries)
        answer = self._content(await self._send("POST", CHAT, canary.body, 200))
        if answer != canary.answer:
            raise WrongAnswerError(f"{answer!r} instead of {canary.answer!r}")

    async def question(self) -> None:
        """Ask a short question."""
        await self._send("POST", CHAT, self._question(self._texts.question()), 200)

    async def upload(self) -> None:
        """Upload a text, ask about it, and delete it half of the time."""
        body: dict[str, Any] = {"text": self._text()}
        if self._random.random() < 0.3:
            body = {"file": base64.b64encode(body["text"].encode()).decode(), "name": "a.txt"}
        document = await self._send("POST", DOCUMENTS, body, 201)
        await self._ask_about(document["id"])
        if self._random.random() < 0.5:
            await self._forget(document["id"])

    async def grow(self) -> None:
        """Upload a text in two parts, and delete it."""
        document = await self._send("POST", DOCUMENTS, {"text": self._text(0.5)}, 201)
        path = f"{DOCUMENTS}/{document['id']}"
        longer = await self._send("POST", path, {"text": self._text(0.3)}, 201)
        if longer["tokens"] <= document["tokens"]:
            raise WrongAnswerError(f"{longer['tokens']} tokens after {document['tokens']}")
        await self._forget(document["id"])

    async def background(self) -> None:
        """Upload in the background and poll its status; delete 30 % of the uploads at once."""
        body = {"text": self._text(), "background": True}
        document = await self._send("POST", DOCUMENTS, body, 202)
        path = f"{DOCUMENTS}/{document['id']}"
        if self._random.random() < 0.3:
            await self._forget(document["id"])
            return
        while (state := await self._send("GET", path, None, 200))["status"] == "reading":
            await asyncio.sleep(0.5)
        if state["status"] != "ready":
            raise WrongAnswerError(f"a document is {state['status']}: {state.get('error')}")
        await self._ask_about(document["id"])

    async def listing(self) -> None:
        """Get the lists of documents and models, the health and the metrics."""
        for path in (DOCUMENTS, "/v1/models", "/health", "/metrics"):
            self._check(await self._http.get(f"{self._server.address}{path}"), 200)

    async def leaver(self) -> None:
        """Disconnect after a few events of a long answer."""
        body = self._question(self._texts.question(), max_tokens=400, stream=True)
        await self._leave(CHAT, body, self._random.randrange(1, 12))

    async def quitter(self) -> None:
        """Disconnect while an uploaded text is read."""
        await self._leave(DOCUMENTS, {"text": self._text(), "stream": True}, 2)

    async def clumsy(self) -> None:
        """Send an invalid request; the error reply must have the right status and a message."""
        path, body, status = self._random.choice(CLUMSY)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        url = f"{self._server.address}{path}"
        reply = await self._http.post(url, content=content, headers=headers)
        self._check(reply, status)
        if not reply.json()["error"]["message"]:
            raise WrongAnswerError("a refusal without a message")

    async def _ask_about(self, document: str) -> None:
        await self._send("POST", CHAT, self._question(ASK, document=document), 200)

    async def _forget(self, document: str) -> None:
        await self._send("DELETE", f"{DOCUMENTS}/{document}", None, 200)

    async def _leave(self, path: str, body: dict[str, Any], after: int) -> None:
        url = f"{self._server.address}{path}"
        async with self._http.stream("POST", url, json=body) as reply:
            self._check_stream(reply)
            async for line in reply.aiter_lines():
                after -= line.startswith("data: ")
                if after <= 0:
                    return

    @staticmethod
    def _check_stream(reply: httpx.Response) -> None:
        if reply.status_code in BUSY:
            raise BusyError
        if reply.status_code != 200:
            raise WrongAnswerError(f"a stream with {reply.status_code}")


KINDS: dict[Callable[[Soak], Awaitable[None]], int] = {
    Soak.known: 4,
    Soak.question: 4,
    Soak.upload: 3,
    Soak.grow: 1,
    Soak.background: 2,
    Soak.listing: 1,
    Soak.leaver: 2,
    Soak.quitter: 2,
    Soak.clumsy: 3,
}
"""The kinds of visits, and their weights."""

CLUMSY: tuple[tuple[str, Any, int], ...] = (
    (CHAT, b"{", 400),
    (CHAT, {"model": "another", "messages": [{"role": "user", "content": "Hello"}]}, 404),
    (CHAT, {"messages": "Hello"}, 400),
    (COMPLETIONS, {"prompt": [10**9]}, 400),
    (DOCUMENTS, {}, 400),
    (DOCUMENTS, {"file": "no base64"}, 400),
    (DOCUMENTS, {"text": "\x00" * 3, "stream": "yes"}, 400),
    (f"{DOCUMENTS}/doc-none", {"text": "more"}, 404),
    ("/v1/nothing", {}, 404),
)
"""Invalid requests: path, body, and the status that the server must reply with."""
