"""What outlives the server: found again, within a quota, by no one else's prompt."""

from __future__ import annotations

import itertools
import json
import logging
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from inf_llm.errors import SavedMemoryError
from inf_llm.generation import disk_prefix_cache
from inf_llm.serve.jobs import SAVED_FROM
from tests.serve.conftest import ServerProcess
from tests.serve.inprocess import CHAT, Local, local
from tests.serve.talk import STORY, ask

DOCUMENTS = "/v1/documents"
TEXT = STORY * 3
ONE = "The cat is called Tom and lives in a red house. " * 9


def upload(server: Local, text: str = TEXT) -> dict[str, Any]:
    return dict(server.post(DOCUMENTS, {"text": text, "name": "tale"}).json())


def files(folder: Path) -> list[Path]:
    """All but the locks."""
    found = [file for file in folder.rglob("*") if file.is_file()]
    return [file for file in found if file.name not in ("lock", "writing.lock")]


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
        assert files(tmp_path)
        server.request("DELETE", f"{DOCUMENTS}/{document['id']}")
    assert not files(tmp_path)


def test_nothing_stays_of_a_document_in_whatever_has_its_text(tmp_path: Path) -> None:
    """What it was before it grew, and answers about it after other words or documents."""
    with local(memory_dir=tmp_path) as server:
        other, document = upload(server, ONE), upload(server)
        before = files(tmp_path)
        asked(server, document)
        server.ask("Who?", documents=[other["id"], document["id"]], max_tokens=2)
        talk = [{"role": "system", "content": ONE}, {"role": "user", "content": "Which times?"}]
        server.post(CHAT, {"model": server.model, "messages": talk, "document": document["id"]})
        server.post(f"{DOCUMENTS}/{document['id']}", {"text": STORY})
        assert len(files(tmp_path)) > len(before)
        server.request("DELETE", f"{DOCUMENTS}/{document['id']}")
        left = {file.parent.name for file in files(tmp_path)} - {"documents"}
        assert len(left) == 1
        server.request("DELETE", f"{DOCUMENTS}/{other['id']}")
    assert not files(tmp_path)


def test_nothing_stays_of_a_document_that_was_read_with_other_settings(tmp_path: Path) -> None:
    with local(memory_dir=tmp_path) as first:
        document = upload(first)
    identity = next(tmp_path.rglob("manifest.json"))
    identity.write_text(identity.read_text().replace('"topk"', '"topl"'))
    with local(memory_dir=tmp_path) as second:
        assert second.request("DELETE", f"{DOCUMENTS}/{document['id']}").status_code == 200
    assert not files(tmp_path)


def test_an_answer_about_a_document_that_is_deleted_meanwhile_is_not_kept(tmp_path: Path) -> None:
    with local(memory_dir=tmp_path) as server:
        document = upload(server)
        library = server.app.engine.library
        memory = library.disk_cache.load(library.disk_cache._held[0])
        held = server.app.documents.held.get(document["id"])
        server.request("DELETE", f"{DOCUMENTS}/{document['id']}")
        library.keep_memory(memory, (held,))
    assert not files(tmp_path)


def test_what_was_killed_before_a_text_was_committed_is_removed(tmp_path: Path) -> None:
    with local(memory_dir=tmp_path) as first:
        lost, kept = upload(first), upload(first, ONE)
    file = tmp_path / "documents" / f"{lost['id']}.json"
    file.rename(file.with_name(f".{file.name}.123"))  # as `write_atomically` has it before the end
    with local(memory_dir=tmp_path) as second:
        assert len(second.app.engine.library.disk_cache) == 1
        assert asked(second, kept)[1] > kept["tokens"] - 64
    assert {file.stem for file in (tmp_path / "documents").iterdir()} == {kept["id"]}


def test_a_document_that_cannot_be_removed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local(memory_dir=tmp_path) as server:
        path = f"{DOCUMENTS}/{upload(server)['id']}"
        with monkeypatch.context() as patch:
            patch.setattr(disk_prefix_cache, "remove", _read_only)
            reply = server.request("DELETE", path)
            assert (reply.status_code, reply.json()["error"]["code"]) == (500, "not_removed")
        assert server.request("GET", path).status_code == 200
        assert server.request("DELETE", path).status_code == 200
    assert not files(tmp_path)


def _read_only(folder: Path) -> None:
    raise OSError(30, "Read-only file system")


def test_a_folder_has_one_server(tmp_path: Path) -> None:
    with (
        local(memory_dir=tmp_path),
        pytest.raises(SavedMemoryError, match="used by another server"),
        local(memory_dir=tmp_path),
    ):
        pass
    with local(memory_dir=tmp_path):
        pass


def test_a_document_that_had_to_leave_is_gone_from_the_disk_too(tmp_path: Path) -> None:
    with local(memory_dir=tmp_path, request_bytes=600) as server:  # 2,400 characters of texts
        texts = [upload(server, f"{number} " * 250) for number in range(6)]
    left = {json.loads(file.read_text())["id"] for file in (tmp_path / "documents").glob("*.json")}
    assert texts[-1]["id"] in left
    assert len(left) < 6
    assert len(list((tmp_path / "memories").iterdir())) == len(left)


def test_a_long_conversation_is_found_by_the_next_server(tmp_path: Path) -> None:
    text = "x" * (SAVED_FROM + 300)
    with local(memory_dir=tmp_path) as first:
        first.ask("short", max_tokens=2)
        first.ask(text, max_tokens=2)
        first.app.engine.library.close()
        assert len(list((tmp_path / "memories").iterdir())) == 1
    with local(memory_dir=tmp_path) as second:
        usage = second.ask(text + " and more", max_tokens=2).json()["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > SAVED_FROM


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

        monkeypatch.setattr(server.app.engine.library.disk_cache, "put", full)
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


def test_killed_while_texts_are_uploaded(
    started: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """Every text whose upload was answered is there, and answers without being read again."""
    first = started("--memory-dir", str(tmp_path))
    committed: list[dict[str, Any]] = []
    enough = threading.Event()

    def go_on(client: int) -> None:
        with suppress(httpx.HTTPError), first.http() as http:
            for number in itertools.count():
                body = {"text": f"{client}, {number}. {TEXT}", "name": "tale"}
                committed.append(http.post(DOCUMENTS, json=body).json())
                if len(committed) > 3:
                    enough.set()

    uploading = [threading.Thread(target=go_on, args=(client,)) for client in range(3)]
    for thread in uploading:
        thread.start()
    assert enough.wait(120)
    first.process.send_signal(signal.SIGKILL)
    for thread in uploading:
        thread.join(60)
    first.process.wait(60)

    second = started("--memory-dir", str(tmp_path))
    with second.http() as http:
        listed = {each["id"] for each in http.get(DOCUMENTS).json()["data"]}
        assert {each["id"] for each in committed} <= listed
        for document in committed:
            body = {
                "model": second.model,
                "messages": [{"role": "user", "content": "Which times?"}],
                "document": document["id"],
                "max_tokens": 2,
            }
            usage = http.post("/v1/chat/completions", json=body).json()["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            assert cached > document["tokens"] - 300


def test_a_document_that_a_smaller_server_has_no_room_for_is_not_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said which ones; they can be deleted, and a larger server has them again."""
    with local(memory_dir=tmp_path) as first:
        documents = [upload(first, text) for text in (ONE, TEXT, TEXT + ONE)]
    smaller = len(TEXT + ONE) // 4 + 1
    with local(memory_dir=tmp_path, request_bytes=smaller) as second:
        assert len(second.app.documents.held) == 1
        for document in documents[:2]:
            assert document["id"] in caplog.text
        assert documents[2]["id"] not in caplog.text
        path = f"{DOCUMENTS}/{documents[0]['id']}"
        assert second.request("GET", path).status_code == 404
        assert second.request("DELETE", path).status_code == 200
        assert second.request("DELETE", path).status_code == 404
        assert second.request("DELETE", f"{DOCUMENTS}/..%2Flock").status_code == 404
    with local(memory_dir=tmp_path) as third:
        held = {each.id for each in third.app.documents.held.all()}
        assert held == {document["id"] for document in documents[1:]}
        assert asked(third, documents[1])[1] > documents[1]["tokens"] - 64
