"""What requests take is counted, bounded, and given back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from inf_llm.serve.admission import Admission, claim_of
from inf_llm.serve.errors import ApiError
from tests.serve.inprocess import CHAT, Local, local, occupied
from tests.serve.talk import until

LIMIT = 10_000


@pytest.fixture
def server() -> Iterator[Local]:
    with local(request_bytes=LIMIT, answer_tokens=2, queue=6) as running:
        yield running


def _scope(client: str) -> dict[str, Any]:
    return {"type": "http", "client": (client, 1)}


def test_bodies_together_are_bounded() -> None:
    admission, one, other = Admission(1, 100, 100), _scope("a"), _scope("b")
    with admission.claim(one):
        claim_of(one).take(90)
        with pytest.raises(ApiError) as caught, admission.claim(other):
            claim_of(other).take(11)
        assert caught.value.status == 503
        assert caught.value.headers["Retry-After"]
        assert admission.bytes == 90
    assert admission.bytes == 0


def test_the_bodies_of_one_client_leave_room() -> None:
    """It has them arrive as slowly as it may, and another one's are taken all the same."""
    admission, one, more, other = Admission(9, 100, 75), _scope("a"), _scope("a"), _scope("b")
    with admission.claim(one), admission.claim(other):
        claim_of(one).take(70)
        full = pytest.raises(ApiError, match="this client's requests have 75 bytes")
        with full as caught, admission.claim(more):
            claim_of(more).take(6)
        assert caught.value.status == 429
        claim_of(other).take(30)
    assert not admission.held


def test_each_client_has_its_share() -> None:
    admission, scopes = Admission(1, 100, 100), [_scope(client) for client in "aab"]
    with admission.claim(scopes[0]), admission.claim(scopes[1]), admission.claim(scopes[2]):
        claim_of(scopes[0]).enter()
        with pytest.raises(ApiError, match="1 requests of this client are waiting") as caught:
            claim_of(scopes[1]).enter()
        assert caught.value.status == 429
        claim_of(scopes[2]).enter()
    assert not admission.asking
    with admission.claim(scopes[1]):
        claim_of(scopes[1]).enter()


def test_one_client_does_not_fill_the_queue(server: Local) -> None:
    gate = occupied(server)
    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(server.ask, f"Hi {n}") for n in range(5)]
        until(lambda: sum(one.done() for one in futures) == 2)
        until(lambda: server.app.worker.waiting == 3)  # half of the queue
        gate.set()
        replies = [one.result() for one in futures]
    assert sorted(reply.status_code for reply in replies) == [200, 200, 200, 429, 429]
    busy = next(reply for reply in replies if reply.status_code == 429)
    assert int(busy.headers["retry-after"]) > 0
    assert busy.json()["error"]["code"] == "busy"
    assert not server.app.admission.asking


def test_all_is_given_back(server: Local) -> None:
    for reply in (
        server.ask(),
        server.ask(stream=True),
        server.ask("x" * 2 * LIMIT),
        server.post(CHAT, {}),
        server.post("/v1/documents", {"text": "A text."}),
    ):
        assert isinstance(reply, httpx.Response)
        assert server.app.admission.bytes == 0
        assert not server.app.admission.asking
    assert json.loads(server.ask().text)["choices"]
