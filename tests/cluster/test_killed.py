"""Mixed requests while replicas are killed: answered right, or refused with a word to try again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest

pytest.importorskip("ray.serve", reason="needs the extra 'ray'")

from tests.cluster.processes import replicas
from tests.serve.conftest import ServerProcess, start
from tests.serve.test_canaries import AT_ONCE, CLIENTS, Client, arrived

OPTIONS = ("--engine", "ray", "--replicas", "2", "--replica-cpus", "0.5", "-n", "20")
KINDS = ("document", "document", "chat", "completion", "nothing")
ASK = "What is the pass key?"


@pytest.mark.slow
@pytest.mark.parametrize(("requests", "pause"), [(500, 15.0)])
def test_no_answer_is_wrong_and_no_key_crosses(tmp_path: Path, requests: int, pause: float) -> None:
    server = start("demo-inf-llm", *OPTIONS, "--memory-dir", str(tmp_path))
    try:
        counts = asyncio.run(mixed(server, requests, pause))
    finally:
        server.stop()
    print(dict(counts))
    assert counts["killed"] >= 5
    assert counts["another's key"] == counts["refused without a word"] == 0
    assert counts["right"] >= 0.97 * counts["asked and answered"]
    assert counts["answered"] + counts["try again"] == requests
    assert counts["answered"] > requests // 2


async def mixed(server: ServerProcess, requests: int, pause: float) -> Counter[str]:
    draw, gate, counts = random.Random(0), asyncio.Semaphore(AT_ONCE), Counter[str]()
    async with httpx.AsyncClient(base_url=server.address, timeout=300) as http:
        clients = [await arrived(http, number) for number in range(CLIENTS)]
        killing = asyncio.create_task(kill_now_and_then(server, pause, draw, counts))

        async def one(client: Client, kind: str) -> None:
            async with gate:
                note(counts, await asked(server, http, client, kind), client, clients, kind)

        await asyncio.gather(
            *(one(draw.choice(clients), draw.choice(KINDS)) for _ in range(requests))
        )
        killing.cancel()
    return counts


async def kill_now_and_then(
    server: ServerProcess, pause: float, draw: random.Random, counts: Counter[str]
) -> None:
    while True:
        await asyncio.sleep(pause)
        there = replicas(server.process.pid)
        if len(there) == 2:  # else all would be waiting for a model to be loaded
            os.kill(draw.choice(there), signal.SIGKILL)
            counts["killed"] += 1


async def asked(
    server: ServerProcess, http: httpx.AsyncClient, client: Client, kind: str
) -> httpx.Response:
    body: dict[str, object] = {"model": server.model, "max_tokens": 20}
    if kind == "completion":
        prompt = f"{client.text}\n\n{ASK} The pass key is"
        return await http.post("/v1/completions", json=body | {"prompt": prompt})
    content = f"{client.text}\n\n{ASK}" if kind == "chat" else ASK
    body["messages"] = [{"role": "user", "content": content}]
    if kind == "document":
        body["document"] = client.document
    return await http.post("/v1/chat/completions", json=body)


def note(
    counts: Counter[str], reply: httpx.Response, client: Client, clients: list[Client], kind: str
) -> None:
    if reply.status_code != 200:
        error = reply.json()["error"]
        again = reply.status_code in (429, 503) and "again" in error["message"]
        counts["try again" if again else "refused without a word"] += 1
        return
    counts["answered"] += 1
    choice = reply.json()["choices"][0]
    text = str(choice.get("text") or choice["message"]["content"])
    others = {other.key for other in clients} - {client.key}
    counts["another's key"] += any(key in text for key in others)
    if kind != "nothing":
        counts["asked and answered"] += 1
        counts["right"] += client.key in text
