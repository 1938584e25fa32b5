"""The routes: what is there, and who may ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from inf_llm.serve.intake import Budget
from tests.serve.conftest import Server
from tests.serve.inprocess import CHAT, Local, local

LIMIT = 10_000


@pytest.fixture(scope="module")
def near() -> Iterator[Local]:
    with local(request_bytes=LIMIT, answer_tokens=2) as running:
        yield running


@pytest.fixture(scope="module")
def keyed() -> Iterator[Local]:
    with local(api_key="right") as running:
        yield running


def test_paths_and_methods_that_are_not_there(near: Local) -> None:
    for method, path, status, allowed in [
        ("GET", "/v1/nothing", 404, None),
        ("GET", "/v1/documents/", 404, None),
        ("GET", CHAT, 405, "POST"),
        ("PUT", "/v1/documents/x", 405, "DELETE, GET, POST"),
        ("POST", "/health", 405, "GET"),
    ]:
        reply = near.request(method, path)
        error = reply.json()["error"]
        assert reply.status_code == status
        assert error["code"] == ("bad_method" if allowed else "not_found")
        assert reply.headers.get("allow") == allowed
        assert (allowed or path) in error["message"]
    assert near.request("HEAD", "/health").status_code == 200


def test_a_path_with_slashes_too_many_says_where_to_go(near: Local) -> None:
    for path, meant in (
        ("//v1/models", "/v1/models"),
        ("/v1//chat/completions", CHAT),
        ("/v1/completions/", "/v1/completions"),
        ("/v1/documents//", "/v1/documents"),
    ):
        reply = near.request("POST", f"http://127.0.0.1{path}", json={})
        assert reply.status_code == 404
        assert f"write {meant!r}, without" in reply.json()["error"]["message"]
    assert "write" not in near.request("GET", "/v1/nothing/").json()["error"]["message"]
    assert near.request("GET", "/v1/models/").json() == near.request("GET", "/v1/models").json()


def test_embeddings_are_not_there_for_a_reason(near: Local) -> None:
    for path in ("/v1/embeddings", "/v1/embeddings/"):
        error = near.post(path, {"model": near.model, "input": "hi"}).json()["error"]
        assert error["message"].startswith("there are no embeddings here")


def test_a_model_says_how_long_a_prompt_may_be(near: Local) -> None:
    """With its answer: by max_len, or by the budget; null where nothing bounds it."""
    with local(700) as short:
        (row,) = short.request("GET", "/v1/models").json()["data"]
        assert row["max_model_len"] == row["context_length"] == 700
    (row,) = near.request("GET", "/v1/models").json()["data"]
    assert row["max_model_len"] == near.app.intake._budget.tokens
    near.app.intake._budget, before = Budget(1, None), near.app.intake._budget
    assert near.request("GET", "/v1/models/tiny-model").json()["max_model_len"] is None
    near.app.intake._budget = before


@pytest.mark.parametrize(
    "given", [None, b"Bearer wrong", b"Basic right", b"Bearer", b"Bearer \xdf"]
)
def test_a_key_is_needed(keyed: Local, given: bytes | None) -> None:
    headers = [] if given is None else [(b"authorization", given)]
    for path in ("/metrics", "/v1/models", "/v1/documents/x"):
        reply = keyed.request("GET", path, headers=headers)
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.json()["error"]["type"] == "authentication_error"
    assert keyed.request("GET", "/health", headers=headers).status_code == 200
    right = {"authorization": "bearer right"}
    assert keyed.request("GET", "/v1/models", headers=right).status_code == 200


def test_models(server: Server) -> None:
    client = server.client()
    assert [model.id for model in client.models.list()] == [server.model]
    assert client.models.retrieve(server.model).id == server.model
    with pytest.raises(openai.NotFoundError, match="tiny-model"):
        client.models.retrieve("gpt-4")
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(
            model="gpt-4", messages=[{"role": "user", "content": "hello"}]
        )
    assert caught.value.body["code"] == "model_not_found"
