"""Several servers that share a folder: each answers about the texts of all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from inf_llm.errors import SavedMemoryError
from tests.serve.inprocess import Local, local, occupied
from tests.serve.talk import STORY

DOCUMENTS = "/v1/documents"
TEXT = STORY * 3


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Local, Local]]:
    with local(memory_dir=tmp_path, home="a") as first, local(memory_dir=tmp_path, home="b") as two:
        yield first, two


def upload(server: Local, text: str = TEXT) -> dict[str, Any]:
    return dict(server.post(DOCUMENTS, {"text": text, "name": "tale"}).json())


def asked(server: Local, document: dict[str, Any]) -> tuple[Any, int]:
    """The answer, and how many tokens were in memory."""
    reply = server.ask("Which times?", document=document["id"], max_tokens=6).json()
    return reply["choices"], reply["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_a_text_of_one_is_read_from_the_disk_by_the_other(pair: tuple[Local, Local]) -> None:
    first, second = pair
    document = upload(first)
    assert document["id"].startswith("doc-a-")
    mine, theirs = asked(first, document), asked(second, document)
    assert theirs[0] == mine[0]
    assert theirs[1] > document["tokens"] - 64


def test_control_in_folders_of_their_own_it_is_not(tmp_path: Path) -> None:
    with local(memory_dir=tmp_path / "a") as first, local(memory_dir=tmp_path / "b") as second:
        document = upload(first)
        reply = second.ask("Which times?", document=document["id"], max_tokens=6)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "document_not_found")


def test_what_one_adds_or_removes_the_other_knows(pair: tuple[Local, Local]) -> None:
    first, second = pair
    document = upload(first)
    path = f"{DOCUMENTS}/{document['id']}"
    asked(second, document)
    longer = second.post(path, {"text": "The cat is called Tom. " * 9}).json()
    assert first.request("GET", path).json() == longer
    assert asked(first, longer) == asked(second, longer)
    first.request("DELETE", path)
    for server in pair:
        assert server.request("GET", path).status_code == 404
        assert server.ask("Which?", document=document["id"]).status_code == 404


@contextmanager
def appending(server: Local, path: str, text: str) -> Iterator[list[httpx.Response]]:
    """A text is put behind a document, and read at the end of the statement; the reply then."""
    replies: list[httpx.Response] = []
    gate = occupied(server)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(server.post, path, {"text": text})
        while server.request("GET", path).json()["status"] != "reading":
            time.sleep(0.01)
        yield replies
        gate.set()
        replies.append(reply.result())


def test_what_both_put_behind_a_text_at_once_is_not_lost(pair: tuple[Local, Local]) -> None:
    first, second = pair
    path = f"{DOCUMENTS}/{upload(first)['id']}"
    with appending(second, path, "Its colour is red.") as replies:
        assert first.post(path, {"text": "The cat is called Tom."}).status_code == 201
    error = replies[0].json()["error"]
    assert (replies[0].status_code, error["code"]) == (409, "document_changed")
    assert second.post(path, {"text": "Its colour is red."}).status_code == 201
    for server in pair:
        text = server.request("GET", f"{path}/text").json()["text"]
        assert text.endswith("The cat is called Tom.\n\nIts colour is red.")


def test_what_is_put_behind_a_text_that_is_removed_meanwhile(
    pair: tuple[Local, Local], tmp_path: Path
) -> None:
    first, second = pair
    path = f"{DOCUMENTS}/{upload(first)['id']}"
    with appending(second, path, "Its colour is red.") as replies:
        assert first.request("DELETE", path).status_code == 200
    assert replies[0].json()["error"]["code"] == "document_changed"
    for server in pair:
        assert server.request("GET", path).status_code == 404
    left = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.suffix or file.name for file in left} <= {".lock", "lock"}


def test_all_are_listed_by_each(pair: tuple[Local, Local]) -> None:
    ids = {upload(server, f"{number}. {TEXT}")["id"] for number, server in enumerate(pair)}
    for server in pair:
        listed = server.request("GET", DOCUMENTS).json()["data"]
        assert {each["id"] for each in listed} == ids


def test_a_text_that_left_the_memory_of_one_is_still_on_the_disk(tmp_path: Path) -> None:
    with local(memory_dir=tmp_path, home="a", request_bytes=600) as server:
        documents = [upload(server, f"{number}. " + "A word. " * 60) for number in range(9)]
        assert [asked(server, each)[1] > 0 for each in documents] == [True] * 9


def test_one_alone_does_not_take_the_folder_of_several(tmp_path: Path) -> None:
    alone = local(memory_dir=tmp_path)
    used = pytest.raises(SavedMemoryError, match="is used by another server")
    with local(memory_dir=tmp_path, home="a"), used, alone:
        pass


def test_the_second_leaves_alone_what_the_first_is_writing(tmp_path: Path) -> None:
    with local(memory_dir=tmp_path, home="a"):
        unfinished = tmp_path / "memories" / f"7-{'0' * 32}"
        unfinished.mkdir()
        with local(memory_dir=tmp_path, home="b"):
            assert unfinished.exists()
    with local(memory_dir=tmp_path, home="a"):
        assert not unfinished.exists()
