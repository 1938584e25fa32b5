"""Two replicas of the tiny model behind one front. On two cores this shows that answers and
affinity are right, not that two are faster."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

pytest.importorskip("ray.serve", reason="needs the extra 'ray'")

from tests.cluster.processes import replicas
from tests.serve.conftest import ServerProcess, start
from tests.serve.talk import STORY

TWO = ("--engine", "ray", "--replicas", "2", "--replica-cpus", "0.5", "--max-active", "1")
DOCUMENTS = "/v1/documents"


@pytest.fixture(scope="module")
def cluster(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("memories")
    running = start(tiny_config, *TWO, "--memory-dir", str(folder), "--api-key", "secret")
    yield running
    assert running.stop() == 0
    assert not any("Traceback" in line for line in running.lines)
    assert not replicas(running.process.pid)


def http(server: ServerProcess) -> httpx.Client:
    key = {"authorization": "Bearer secret"}
    return httpx.Client(base_url=server.address, headers=key, timeout=120)


def upload(server: ServerProcess, text: str = STORY * 3, **more: Any) -> dict[str, Any]:
    with http(server) as client:
        return dict(client.post(DOCUMENTS, json={"text": text, "name": "tale"} | more).json())


def ask(server: ServerProcess, document: str, words: str = "Which times?") -> httpx.Response:
    messages = [{"role": "user", "content": words}]
    body = {"model": server.model, "messages": messages, "document": document, "max_tokens": 6}
    with http(server) as client:
        return client.post("/v1/chat/completions", json=body)


def cached(reply: httpx.Response) -> int:
    return int(reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def home(reply: httpx.Response) -> str:
    return reply.headers["x-inf-llm-replica"]


def test_questions_go_where_the_document_is(cluster: ServerProcess) -> None:
    for number in range(6):
        document = upload(cluster, f"{number}. {STORY * 3}")
        replies = [ask(cluster, document["id"], words) for words in ("Who?", "Where?", "When?")]
        assert {home(reply) for reply in replies} == {document["id"].split("-")[1]}
        assert all(cached(reply) > document["tokens"] - 64 for reply in replies)


def test_what_has_no_memory_goes_to_both(cluster: ServerProcess) -> None:
    with http(cluster) as client:
        assert len({home(client.get("/v1/models")) for _ in range(40)}) == 2


def test_turns_of_a_conversation_meet(cluster: ServerProcess) -> None:
    turns = [{"role": "user", "content": STORY * 3}]
    client = cluster.client("secret")
    replicas = set()
    for _ in range(3):
        raw = client.chat.completions.with_raw_response.create(
            model=cluster.model, messages=turns, max_tokens=4
        )
        replicas.add(raw.headers["x-inf-llm-replica"])
        turns.append({"role": "assistant", "content": raw.parse().choices[0].message.content})
        turns.append({"role": "user", "content": "And then?"})
    assert len(replicas) == 1


def test_an_answer_is_streamed_as_it_comes(cluster: ServerProcess) -> None:
    body = {"model": cluster.model, "messages": [{"role": "user", "content": "hello"}]}
    client, times, text = cluster.client("secret"), [], ""
    for chunk in client.chat.completions.create(**body, max_tokens=40, stream=True):
        times.append(time.monotonic())
        text += chunk.choices[0].delta.content or ""
    whole = client.chat.completions.create(**body, max_tokens=40).choices[0].message.content
    assert text == whole
    assert len({round(each, 3) for each in times}) > 10


def test_errors_are_those_of_one_machine(cluster: ServerProcess) -> None:
    wrong = cluster.client("other")
    with pytest.raises(openai.AuthenticationError):
        wrong.models.list()
    client = cluster.client("secret")
    body: Any = {"model": cluster.model, "messages": [{"role": "user", "content": "hello"}]}
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(**body, temperature=9)
    with pytest.raises(openai.NotFoundError, match="does not exist here"):
        client.chat.completions.create(**body | {"model": "other"})
    with http(cluster) as client:
        assert client.get("/v1/no").status_code == 404
        large = client.post(DOCUMENTS, content=b'{"text": "' + b"x" * (17 << 20) + b'"}')
        assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")
        assert client.get("/", headers={"host": "evil.example"}).status_code == 403
        assert "Ray exports" in client.get("/metrics").json()["error"]["message"]
        assert client.get("/").headers["content-type"].startswith("text/html")


def test_a_client_that_leaves_ends_its_answer(cluster: ServerProcess) -> None:
    """Each replica answers one request at a time, so that a question waits for the endless ones."""
    body = {"model": cluster.model, "prompt": "hello", "max_tokens": 1_000_000, "stream": True}
    short = body | {"max_tokens": 1, "stream": False}
    with http(cluster) as client:
        with ExitStack() as endless:
            busy = set[str]()
            while len(busy) < 2:
                reply = endless.enter_context(client.stream("POST", "/v1/completions", json=body))
                busy.add(home(reply))
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/completions", json=short, timeout=3)
        assert client.post("/v1/completions", json=short, timeout=60).status_code == 200


def test_reading_is_watched_where_it_goes_on(cluster: ServerProcess) -> None:
    document = upload(cluster, STORY * 6, background=True)
    with http(cluster) as client:
        events = client.get(f"{DOCUMENTS}/{document['id']}/events").text
    assert '"status": "ready"' in events.replace('":"', '": "')
    assert ask(cluster, document["id"]).status_code == 200


def test_a_document_outlives_its_replica(cluster: ServerProcess) -> None:
    document = upload(cluster, "Once. " + STORY * 3)
    answers = {ask(cluster, document["id"]).json()["choices"][0]["message"]["content"]}
    for pid in replicas(cluster.process.pid):  # that of the document is one of them
        os.kill(pid, signal.SIGKILL)
        reply = _answered(cluster, document["id"])
        assert cached(reply) > document["tokens"] - 64
        answers.add(reply.json()["choices"][0]["message"]["content"])
    assert len(answers) == 1


def _answered(server: ServerProcess, document: str) -> httpx.Response:
    """The answer, after as many tries as an error asks for."""
    deadline = time.monotonic() + 120
    while (reply := ask(server, document)).status_code != 200:
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "replica_lost")
        assert "send the request again" in reply.json()["error"]["message"]
        assert time.monotonic() < deadline
        time.sleep(1)
    return reply


def test_a_stream_whose_replica_dies_says_so(cluster: ServerProcess) -> None:
    body = {"model": cluster.model, "prompt": "hello", "max_tokens": 3000, "stream": True}
    lines: list[str] = []
    begun = threading.Event()

    def read() -> None:
        with http(cluster) as client, client.stream("POST", "/v1/completions", json=body) as reply:
            for line in reply.iter_lines():
                lines.append(line)
                if len(lines) > 20:
                    begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(60)
    for pid in replicas(cluster.process.pid):
        os.kill(pid, signal.SIGKILL)
    reader.join(60)
    assert "replica_lost" in [line for line in lines if line.startswith("data: ")][-1]
    with http(cluster) as client:
        deadline = time.monotonic() + 120
        while client.get("/health").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(1)
