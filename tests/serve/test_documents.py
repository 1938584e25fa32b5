"""Uploaded texts: read once, asked often, bounded in number and size."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

from inf_llm.serve.documents import MAX_DOCUMENTS, Document, Documents, uploaded
from inf_llm.serve.errors import ApiError
from tests.serve.conftest import Server
from tests.serve.inprocess import Local
from tests.serve.talk import STORY, ask


def test_a_cut_document_is_reported(cutting: Local) -> None:
    whole = cutting.post("/v1/documents", {"text": "y" * 100}).json()
    assert (whole["tokens"], whole["cut_tokens"]) == (100, 0)
    cut = cutting.post("/v1/documents", {"text": "y" * 1000}).json()
    assert 0 < cut["cut_tokens"] == 1000 - cut["tokens"]
    assert cutting.request("GET", f"/v1/documents/{cut['id']}").json() == cut


def test_a_document_is_read_once_and_asked_often(server: Server) -> None:
    text = "\n \U0001f600 " + STORY.replace("best", "bést")
    client = httpx.Client(base_url=server.address, timeout=60)
    document = client.post("/v1/documents", json={"text": text, "name": "tale"}).json()
    assert document["characters"] == len(text)
    for question in ("Which times?", "What else?"):
        answer = ask(server, question, extra_body={"document": document["id"], "recall": True})
        usage = answer.usage
        assert usage.prompt_tokens_details.cached_tokens > document["tokens"] - 64
        placed = [p for p in answer.model_extra["recalled"] if p["characters"]]
        assert placed
        for passage in placed:
            start, end = passage["characters"]
            assert text[start:end] in passage["text"]
    assert client.get(f"/v1/documents/{document['id']}").json()["name"] == "tale"
    assert client.delete(f"/v1/documents/{document['id']}").json()["deleted"] is True
    with pytest.raises(openai.NotFoundError, match="upload it again"):
        ask(server, "Still there?", extra_body={"document": document["id"]})


def test_reading_a_document_reports_progress(server: Server) -> None:
    body = {"text": STORY * 4, "stream": True}
    with httpx.stream("POST", f"{server.address}/v1/documents", json=body, timeout=60) as reply:
        lines = [line[6:] for line in reply.iter_lines() if line.startswith("data: ")]
    events = [json.loads(line) for line in lines[:-1]]
    progress = [event for event in events if event["object"] == "document.progress"]
    assert len(progress) > 3
    assert [p["read"] for p in progress] == sorted(p["read"] for p in progress)
    assert events[-1]["object"] == "document"
    assert lines[-1] == "[DONE]"


def test_documents_follow_the_same_rule() -> None:
    body = {"text": "t", "name": None, "stream": None, "user": "me", "whatever": None}
    upload = uploaded(body)
    assert (upload.content, upload.name, upload.stream, upload.background) == (
        "t",
        "",
        False,
        False,
    )
    with pytest.raises(ApiError, match=r"'nmae' is not a parameter.*'name'"):
        uploaded({"text": "t", "nmae": "x"})


def test_those_used_least_recently_leave_first() -> None:
    held = Documents(characters=100)
    first, second, third = (Document("x" * 40, name) for name in "abc")
    held.add(first)
    held.add(second)
    assert held.get(first.id) is first
    held.add(third)
    assert len(held) == 2
    with pytest.raises(ApiError, match="has left to make room"):
        held.get(second.id)
    held.remove(first.id)
    assert len(held) == 1
    large = Document("x" * 1000, "d")
    held.add(large)  # one is always held
    assert held.get(large.id) is large
    assert len(held) == 1


def test_their_number_is_bounded() -> None:
    held = Documents(characters=10**6)
    for _ in range(MAX_DOCUMENTS + 3):
        held.add(Document("x", ""))
    assert len(held) == MAX_DOCUMENTS


@pytest.mark.parametrize("large", [False, True], ids=["many", "large"])
def test_a_client_makes_room_of_its_own(large: bool) -> None:
    """Its many small texts, or few large ones, do not push out those of others."""
    held = Documents(characters=10**6)
    mine = [Document("x" * 100, "", owner="me") for _ in range(20)]
    for document in mine:
        held.add(document)
    sizes = [300_000] * 9 if large else [1] * (MAX_DOCUMENTS + 9)
    others = [Document("y" * size, "", owner="another") for size in sizes]
    left = [gone for document in others for gone in held.add(document)]
    assert left == others[: len(left)]
    assert all(document.id in held for document in (*mine, others[-1]))
    assert len(left) == (6 if large else 29)


def test_one_text_that_takes_most_of_the_room_stays() -> None:
    """It was just uploaded: others leave for it, those of its own client first."""
    held = Documents(characters=1000)
    other = Document("x" * 90, "", owner="another")
    mine, large = (Document("x" * size, "", owner="me") for size in (20, 950))
    for document in (other, mine):
        held.add(document)
    assert held.add(large) == [mine, other]
