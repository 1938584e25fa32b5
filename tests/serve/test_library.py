"""What outlives the server: found again, within a quota, by no one else's prompt."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inf_llm.errors import SavedMemoryError
from inf_llm.serve.jobs import SHELVED_FROM
from tests.serve.conftest import ServerProcess
from tests.serve.inprocess import Local, local
from tests.serve.talk import STORY, ask

DOCUMENTS = "/v1/documents"
TEXT = STORY * 3


def upload(server: Local, text: str = TEXT) -> dict[str, Any]:
    return dict(server.post(DOCUMENTS, {"text": text, "name": "tale"}).json())


def asked(server: Local, document: dict[str, Any]) -> tuple[Any, int]:
    """The answer, and how many tokens were in memory."""
    reply = server.ask("Which times?", document=document["id"], max_tokens=6).json()
    return reply["choices"], reply["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_a_document_is_found_by_the_next_server(tmp_path: Path) -> None:
    with local(memory_dir=tmp_path) as first:
        document = upload(first)
        assert document["saved"] is True
        answer, _ = asked(first, document)
    with local(memory_dir=tmp_path) as second:
        assert second.request("GET", f"{DOCUMENTS}/{document['id']}").json() == document
        again, cached = asked(second, document)
        assert (again, cached > document["tokens"] - 64) == (answer, True)


def test_control_without_a_folder_nothing_is(tmp_path: Path) -> None:
    with local() as first:
        document = upload(first)
        assert document["saved"] is False
    with local() as second:
        assert second.request("GET", f"{DOCUMENTS}/{document['id']}").status_code == 404


def test_a_document_that_grew(tmp_path: Path) -> None:
    with local(memory_dir=tmp_path) as first:
        document = upload(first)
        longer = first.post(f"{DOCUMENTS}/{document['id']}", {"text": STORY}).json()
    with local(memory_dir=tmp_path) as second:
        assert asked(second, longer)[1] > longer["tokens"] - 64


def test_a_document_that_is_forgotten_leaves_nothing(tmp_path: Path) -> None:
    with local(memory_dir=tmp_path) as server:
        document = upload(server)
        assert any(file.is_file() for file in tmp_path.rglob("*"))
        server.request("DELETE", f"{DOCUMENTS}/{document['id']}")
    assert not any(file.is_file() for file in tmp_path.rglob("*"))


def test_a_document_that_had_to_leave_is_gone_from_the_disk_too(tmp_path: Path) -> None:
    with local(memory_dir=tmp_path, request_bytes=600) as server:  # 2,400 characters of texts
        texts = [upload(server, f"{number} " * 250) for number in range(6)]
    left = {json.loads(file.read_text())["id"] for file in (tmp_path / "documents").iterdir()}
    assert texts[-1]["id"] in left
    assert len(left) < 6
    assert len(list((tmp_path / "memories").iterdir())) == len(left)


def test_a_long_conversation_is_found_by_the_next_server(tmp_path: Path) -> None:
    text = "x" * (SHELVED_FROM + 300)
    with local(memory_dir=tmp_path) as first:
        first.ask("short", max_tokens=2)
        first.ask(text, max_tokens=2)
        first.app.engine.library.close()
        assert len(list((tmp_path / "memories").iterdir())) == 1
    with local(memory_dir=tmp_path) as second:
        usage = second.ask(text + " and more", max_tokens=2).json()["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > SHELVED_FROM


def test_a_document_that_the_quota_has_no_room_for(tmp_path: Path) -> None:
    """It can be asked about, and is read again by the next server."""
    with local(memory_dir=tmp_path, disk_quota=1000) as first:
        document = upload(first)
        assert document["saved"] is False
        answer, _ = asked(first, document)
    with local(memory_dir=tmp_path, disk_quota=1000) as second:
        assert asked(second, document)[0] == answer


def test_a_disk_that_fails_is_said_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with local(memory_dir=tmp_path) as server:

        def full(*args: Any) -> None:
            raise SavedMemoryError("the disk is full")

        monkeypatch.setattr(server.app.engine.library.shelf, "put", full)
        with caplog.at_level(logging.ERROR):
            document = upload(server)
        assert document["saved"] is False
        assert "the disk is full" in caplog.text
        assert asked(server, document)[0]


def test_a_damaged_text_is_left_alone(tmp_path: Path) -> None:
    with local(memory_dir=tmp_path) as first:
        document = upload(first)
    file = tmp_path / "documents" / f"{document['id']}.json"
    for content in ("{", "[1]", '{"text": "x"}', file.read_text().replace(document["id"], "doc-y")):
        file.write_text(content)
        with local(memory_dir=tmp_path) as second:
            assert second.request("GET", DOCUMENTS).json()["data"] == []
        assert file.read_text() == content


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SavedMemoryError), local(memory_dir=tmp_path / "file"):
        pass


def test_killed_while_it_answers(started: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """What was committed is not read again; what was being read has left nothing behind."""
    first = started("--memory-dir", str(tmp_path))
    client = first.http()
    document = client.post(DOCUMENTS, json={"text": TEXT}).json()
    body = {"text": TEXT * 40, "background": True}
    assert client.post(DOCUMENTS, json=body).status_code == 202
    stream = ask(first, "Go on", max_tokens=500, stream=True)
    next(iter(stream))
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(30)
    second = started("--memory-dir", str(tmp_path))
    listed = second.http().get(DOCUMENTS).json()["data"]
    assert [each["id"] for each in listed] == [document["id"]]
    usage = ask(second, "Which times?", extra_body={"document": document["id"]}).usage
    assert usage.prompt_tokens_details.cached_tokens > document["tokens"] - 64
