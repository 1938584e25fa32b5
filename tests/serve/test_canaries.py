"""Nothing of one client's text in another's answer: pass keys, asked for from everywhere."""

from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import inf_llm
from inf_llm.config import load_config
from inf_llm.demo.trial import haystack_text
from inf_llm.generation import kept
from inf_llm.generation.kept import Kept
from inf_llm.serve.start import ServeOptions, build
from tests.serve.inprocess import Local

CLIENTS, AT_ONCE = 8, 6
ASK = "What is the pass key?"
_KINDS = ("document", "document", "chat", "completion", "nothing")


@dataclass(frozen=True)
class Client:
    """Someone with a text: prose that all share, a key of one's own, and more prose."""

    key: str
    text: str
    document: str


@contextmanager
def served(folder: Path) -> Iterator[Local]:
    """A server of the embedded model, which finds pass keys."""
    config = load_config("demo-inf-llm", ["model.dtype=float32"])
    model, tokenizer = inf_llm.load(config)
    app = build(model, tokenizer, config, ServeOptions(memory_dir=folder, answer_tokens=20))
    app.worker.start()
    yield Local(app, app.limits.model)
    assert app.worker.stop(30)


async def arrived(http: httpx.AsyncClient, number: int) -> Client:
    prose, key = haystack_text(), str(10_000 + 7_919 * number)
    fact = f" The pass key is {key}. Remember it. {key} is the pass key. "
    text = prose[:3000] + fact + prose[3000 : 5000 + 200 * number]
    reply = await http.post("/v1/documents", json={"text": text, "name": f"text {number}"})
    return Client(key, text, reply.json()["id"])


async def answer(server: Local, http: httpx.AsyncClient, client: Client, kind: str) -> str:
    """What a client is told the key is."""
    body = server.question(ASK, max_tokens=20)
    path = "/v1/chat/completions"
    if kind == "document":
        body["document"] = client.document
    elif kind == "chat":
        body["messages"][0]["content"] = f"{client.text}\n\n{ASK}"
    elif kind == "completion":
        path = "/v1/completions"
        body = {"model": server.model, "prompt": client.text + f"\n\n{ASK} The pass key is"}
    reply = (await http.post(path, json=body)).json()["choices"][0]
    return str(reply.get("text") or reply["message"]["content"])


async def mixed(server: Local, requests: int) -> tuple[int, int, int]:
    """Answers with another's key, with one's own where it was asked for, and how many that were."""
    draw, gate = random.Random(0), asyncio.Semaphore(AT_ONCE)
    async with server.client() as http:
        clients = [await arrived(http, number) for number in range(CLIENTS)]

        async def one(client: Client, kind: str) -> tuple[bool, bool, bool]:
            async with gate:
                text = await answer(server, http, client, kind)
            leaked = any(other.key in text for other in clients if other is not client)
            wants_key = kind != "nothing"
            return (
                leaked or (not wants_key and client.key in text),
                wants_key and client.key in text,
                wants_key,
            )

        wanted = [(draw.choice(clients), draw.choice(_KINDS)) for _ in range(requests)]
        told = await asyncio.gather(*(one(*each) for each in wanted))
    leaks, found, asked = (sum(column) for column in zip(*told, strict=True))
    return leaks, found, asked


@pytest.mark.parametrize("requests", [24, pytest.param(500, marks=pytest.mark.slow)])
def test_no_key_crosses(tmp_path: Path, requests: int) -> None:
    with served(tmp_path) as server:
        leaks, found, asked = asyncio.run(mixed(server, requests))
    print(f"{requests} requests: {leaks} leaks, {found} of {asked} keys found")
    assert leaks == 0
    assert found >= 0.9 * asked, "the control of the control: keys are found at all"


def test_control_swapped_memories_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def anyone(all_kept: list[Kept], key: array[int]) -> list[Kept]:
        return [kept for kept in all_kept if 0 < len(key) - len(kept.key) < 100]

    monkeypatch.setattr(kept, "beginnings", anyone)
    with served(tmp_path) as server:
        leaks, *_ = asyncio.run(mixed(server, 24))
    assert leaks > 0
