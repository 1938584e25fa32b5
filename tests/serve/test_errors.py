"""What a client is told that did something wrong, or met something that failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from inf_llm.serve.errors import ApiError, bad_value, unsupported
from tests.serve.inprocess import Local, local

LIMIT = 10_000


@pytest.fixture(scope="module")
def server() -> Iterator[Local]:
    with local(request_bytes=LIMIT, answer_tokens=2) as running:
        yield running


def counted(server: Local, name: str, **labels: str) -> float:
    return server.app.metrics.registry.get_sample_value(f"inf_llm_{name}", labels) or 0.0


def test_an_unexpected_error(server: Local, monkeypatch: Any) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(server.app.documents.held, "get", fail)
    before = counted(server, "requests_total", route="/v1/documents/{id}", status="500")
    reply = server.request("GET", "/v1/documents/x")
    assert reply.status_code == 500
    assert reply.json()["error"]["type"] == "server_error"
    assert "secret" not in reply.text
    assert counted(server, "requests_total", route="/v1/documents/{id}", status="500") == before + 1
    monkeypatch.setattr(server.app.engine, "answer", fail)
    reply = server.ask()
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal_error"
    reply = server.ask(stream=True)  # its headers are sent before the model begins
    assert json.loads(reply.text.split("data: ")[-1])["error"]["code"] == "internal_error"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (bad_value("n", "n is no number"), "invalid_request_error"),
        (unsupported("n", "n is not taken"), "invalid_request_error"),
        (ApiError(401, "a key"), "authentication_error"),
        (ApiError(403, "a host"), "permission_error"),
        (ApiError(429, "later"), "rate_limit_error"),
        (ApiError(503, "ending"), "server_error"),
    ],
)
def test_the_form_is_that_of_openai(error: ApiError, kind: str) -> None:
    assert error.body() == {
        "error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}
    }
