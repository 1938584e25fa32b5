"""Texts as handles: several at once, read on, listed, watched, forgotten."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import pytest

from inf_llm.serve.errors import ApiError
from tests.documents import epub
from tests.serve.inprocess import CHAT, Local, local, occupied, streamed
from tests.serve.talk import until

DOCUMENTS = "/v1/documents"
ONE = "The cat is called Tom and lives in a red house. " * 9
TWO = "The dog is called Rex and lives in a blue boat. " * 9


@pytest.fixture(scope="module")
def server() -> Iterator[Local]:
    with local() as started:
        yield started


def upload(server: Local, text: str = ONE, **more: Any) -> dict[str, Any]:
    reply = server.post(DOCUMENTS, {"text": text, **more})
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


def cached(reply: Any) -> int:
    return int(reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_several_documents_in_one_question(server: Local) -> None:
    """Each passage says which it is from, and where; the first one is not read again."""
    one, two = upload(server, "\n " + ONE, name="cats"), upload(server, TWO, name="dogs")
    options = {"documents": [one["id"], two["id"]], "recall": True, "max_tokens": 4}
    reply = server.ask("Who is it?", **options)
    assert cached(reply) > one["tokens"] - 64
    texts = {one["id"]: "\n " + ONE, two["id"]: TWO}
    found = [each for each in reply.json()["recalled"] if each["document"]]
    assert {each["document"]["name"] for each in found} == {"cats", "dogs"}
    for each in found:
        start, end = each["characters"]
        assert texts[each["document"]["id"]][start:end] in each["text"]


@pytest.mark.parametrize("documents", ["doc", [1], ["doc-x", "doc-x"], {}])
def test_documents_that_are_no_list_of_ids(server: Local, documents: Any) -> None:
    reply = server.ask("Who?", documents=documents)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "documents")


def test_texts_of_one_document(server: Local) -> None:
    reply = server.post(DOCUMENTS, {"texts": [ONE, TWO], "name": "both"})
    both = reply.json()
    assert both["characters"] == len(ONE.rstrip()) + 2 + len(TWO.strip())
    for wrong in ([], "text", [ONE, 3]):
        assert server.post(DOCUMENTS, {"texts": wrong}).status_code == 400
    assert server.post(DOCUMENTS, {"texts": [ONE], "text": ONE}).status_code == 400


def test_reading_on_reads_only_what_is_new(server: Local) -> None:
    document = upload(server, ONE)
    before = server.ask("Who is it?", document=document["id"], max_tokens=4)
    longer = server.post(f"{DOCUMENTS}/{document['id']}", {"text": TWO}).json()
    assert longer["id"] == document["id"]
    assert longer["tokens"] > 1.9 * document["tokens"]
    after = server.ask("Who is it?", document=document["id"], max_tokens=4)
    assert cached(after) > longer["tokens"] - 64
    assert before.json()["usage"]["prompt_tokens"] < after.json()["usage"]["prompt_tokens"]
    whole = server.post(DOCUMENTS, {"texts": [ONE, TWO]}).json()
    same = server.ask("Who is it?", document=whole["id"], max_tokens=4)
    assert same.json()["choices"] == after.json()["choices"]


def test_the_list_has_the_texts_of_the_client(server: Local) -> None:
    document = upload(server, name="mine")
    listed = server.request("GET", DOCUMENTS).json()
    assert listed["object"] == "list"
    assert document in listed["data"]
    server.app.documents.held.get(document["id"]).owner = "another client"
    assert document not in server.request("GET", DOCUMENTS).json()["data"]
    assert server.request("GET", f"{DOCUMENTS}/{document['id']}").status_code == 200


def test_a_text_in_the_background() -> None:
    """It cannot be asked about before it is read; its events tell when that is."""

    async def go(server: Local) -> None:
        async with server.client() as client:
            gate = occupied(server)
            reply = await client.post(DOCUMENTS, json={"text": ONE, "background": True})
            document = reply.json()
            assert (reply.status_code, document["status"]) == (202, "reading")
            path = f"{DOCUMENTS}/{document['id']}"
            assert (await client.get(path)).json()["status"] == "reading"
            listed = (await client.get(DOCUMENTS)).json()["data"]
            assert [each["id"] for each in listed] == [document["id"]]
            early = await client.post(CHAT, json=server.question("Who?", document=document["id"]))
            assert (early.status_code, early.json()["error"]["code"]) == (409, "document_not_ready")
            assert early.headers["retry-after"] == "1"
            assert (await client.post(path, json={"text": TWO})).status_code == 409
            events = asyncio.create_task(client.get(f"{path}/events"))
            await asyncio.sleep(0)
            gate.set()
            told = streamed(await events)
            assert {each["object"] for each in told[:-1]} <= {"document.progress"}
            assert told[-1] == (await client.get(path)).json()
            assert told[-1]["status"] == "ready"
            assert streamed(await client.get(f"{path}/events")) == told[-1:]
            late = await client.post(CHAT, json=server.question("Who?", document=document["id"]))
            assert late.status_code == 200

    with local() as server:
        asyncio.run(go(server))


def test_a_text_that_is_deleted_while_it_is_read() -> None:
    async def go(server: Local) -> None:
        async with server.client() as client:
            gate = occupied(server)
            body = {"text": ONE, "background": True}
            path = f"{DOCUMENTS}/{(await client.post(DOCUMENTS, json=body)).json()['id']}"
            events = asyncio.create_task(client.get(f"{path}/events"))
            await asyncio.sleep(0.01)
            assert (await client.delete(path)).json()["deleted"] is True
            gate.set()
            assert "the request was cancelled" in (await events).text
            assert (await client.get(path)).status_code == 404

    with local() as server:
        asyncio.run(go(server))


def uploaded_file(server: Local, data: bytes, name: str = "book", **more: Any) -> Any:
    return server.post(DOCUMENTS, {"file": base64.b64encode(data).decode(), "name": name, **more})


def test_a_file_is_read_and_cited_by_its_headings(server: Local) -> None:
    """After an appended file and in a second chapter too."""
    document = uploaded_file(server, epub([("Cats", ONE), ("Dogs", TWO)])).json()
    assert "EPUB" in document["origin"]
    path = f"{DOCUMENTS}/{document['id']}"
    data = base64.b64encode(epub([("Birds", "The bird is green. " * 30)])).decode()
    assert server.post(path, {"file": data}).status_code == 201
    options = {"document": document["id"], "recall": True, "max_tokens": 4}
    recalled = server.ask("Who is it?", **options).json()["recalled"]
    text = server.app.documents.held.get(document["id"]).text
    words = {"Cats": "Tom", "Dogs": "Rex", "Birds": "bird"}
    seen = {each["label"] for each in recalled if each["label"] in words}
    assert len(seen) > 1
    for label in seen:
        places = [p for p in server.app.documents.held.get(document["id"]).places if p[2] == label]
        assert all(words[label] in text[start:end] for start, end, _ in places)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"file": "no base64!"}, "base64"),
        ({"file": 3}, "base64"),
        ({"file": base64.b64encode(b"GIF89a" + bytes(99)).decode()}, "a GIF image"),
        ({"file": "YQ==", "text": "a"}, "exclude each other"),
        ({"file": base64.b64encode(b"  ").decode()}, "is empty"),
    ],
)
def test_a_file_that_cannot_be_read(server: Local, body: dict[str, Any], says: str) -> None:
    reply = server.post(DOCUMENTS, body)
    assert reply.status_code == 400
    assert says in reply.json()["error"]["message"]


def test_a_text_in_the_background_counts_until_it_is_read() -> None:
    """Else the bodies of waiting texts have no bound."""

    async def go(server: Local) -> None:
        admission = server.app.admission
        async with server.client() as client:
            gate = occupied(server)
            body = {"text": ONE, "background": True}
            path = f"{DOCUMENTS}/{(await client.post(DOCUMENTS, json=body)).json()['id']}"
            assert admission.bytes >= len(ONE)
            assert admission.asking.total() == 1
            gate.set()
            await client.get(f"{path}/events")
            assert (admission.bytes, admission.asking.total()) == (0, 0)

    with local() as server:
        asyncio.run(go(server))


def test_the_head_of_the_list(server: Local) -> None:
    assert server.request("HEAD", DOCUMENTS).status_code == 200


def _fails(*args: Any) -> Iterator[int]:
    yield 1
    raise ApiError(503, "out of memory", "out_of_memory")


def test_why_a_text_in_the_background_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks later is told; so is one who reads on, and the text is as it was."""

    async def go(server: Local) -> None:
        async with server.client() as client:

            async def failing(path: str) -> tuple[str, str]:
                with monkeypatch.context() as patching:
                    patching.setattr(server.app.engine, "read", _fails)
                    reply = await client.post(path, json={"text": ONE, "background": True})
                    where = f"{DOCUMENTS}/{reply.json()['id']}"
                    return where, (await client.get(f"{where}/events")).text

            path, events = await failing(DOCUMENTS)
            name = path.rpartition("/")[2]
            told = (await client.get(path)).json()
            assert (told["status"], told["error"]["code"]) == ("failed", "out_of_memory")
            assert "out of memory" in events
            assert "out of memory" in (await client.get(f"{path}/events")).text
            assert told in (await client.get(DOCUMENTS)).json()["data"]
            for where, body in (
                (CHAT, server.question("Who?", document=name)),
                (path, {"text": ONE}),
            ):
                refused = await client.post(where, json=body)
                assert (refused.status_code, refused.json()["error"]["code"]) == (
                    409,
                    "document_failed",
                )
            assert (await client.delete(path)).status_code == 200
            assert (await client.get(path)).status_code == 404

            there = (await client.post(DOCUMENTS, json={"text": TWO})).json()
            path, _ = await failing(f"{DOCUMENTS}/{there['id']}")
            told = (await client.get(path)).json()
            assert told.pop("error")["code"] == "out_of_memory"
            assert told == there
            asked = await client.post(CHAT, json=server.question("Who?", document=there["id"]))
            assert asked.status_code == 200
            longer = await client.post(path, json={"text": ONE})
            assert (await client.get(path)).json() == longer.json()

    with local() as server:
        asyncio.run(go(server))


def _lengths(server: Local) -> tuple[int, ...]:
    """Of what is kept, once nothing is being done."""
    until(lambda: server.app.worker.running + server.app.worker.waiting == 0)
    return tuple(server.app.engine.pool.lengths)


def test_a_text_that_is_deleted_leaves_the_memory_at_once() -> None:
    """Behind another text and in conversations about it too; what others have read stays."""
    with local() as server:
        talk = server.question("What else is there to say? " * 20, max_tokens=2)
        server.post(CHAT, talk)
        before = _lengths(server)
        other = upload(server, TWO)
        document = upload(server, ONE)
        server.ask("Who is it? " * 20, document=document["id"], max_tokens=2)
        server.ask("Who?", documents=[other["id"], document["id"]], max_tokens=2)
        assert max(_lengths(server)) > 1.5 * document["tokens"]
        server.request("DELETE", f"{DOCUMENTS}/{document['id']}")
        left = [length for length in _lengths(server) if length not in before]
        assert 0.8 * other["tokens"] < max(left) <= other["tokens"]
        server.request("DELETE", f"{DOCUMENTS}/{other['id']}")
        assert _lengths(server) == before


def test_two_documents_of_one_text_share_a_memory_till_both_are_deleted() -> None:
    with local() as server:
        one, same = upload(server), upload(server)
        server.request("DELETE", f"{DOCUMENTS}/{one['id']}")
        kept = _lengths(server)
        assert kept
        reply = server.ask("Who?", document=same["id"], max_tokens=2)
        assert cached(reply) > same["tokens"] - 64
        server.request("DELETE", f"{DOCUMENTS}/{same['id']}")
        assert not [length for length in _lengths(server) if length > 64]


def test_a_memory_in_use_is_forgotten_after_use() -> None:
    async def go(server: Local) -> None:
        async with server.client() as client:
            document = (await client.post(DOCUMENTS, json={"text": ONE})).json()
            body = server.question("Who?" * 99, document=document["id"], max_tokens=200)
            answering = asyncio.create_task(client.post(CHAT, json=body))
            await asyncio.to_thread(until, lambda: server.app.worker.running)
            await client.delete(f"{DOCUMENTS}/{document['id']}")
            assert (await answering).status_code == 200

    with local() as server:
        asyncio.run(go(server))
        assert not [length for length in _lengths(server) if length > 64]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_what_changed_while_an_append_was_laid_out(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Neither is the other append lost, nor does what was deleted come back."""

    async def go(server: Local) -> None:
        intake, layout = server.app.intake, server.app.intake.document
        async with server.client() as client:
            path = f"{DOCUMENTS}/{(await client.post(DOCUMENTS, json={'text': ONE})).json()['id']}"
            laying_out, go_on = asyncio.Event(), asyncio.Event()

            async def slow(*given: Any) -> Any:
                laying_out.set()
                await go_on.wait()
                return await layout(*given)

            monkeypatch.setattr(intake, "document", slow)
            late = asyncio.create_task(client.post(path, json={"text": "Too late."}))
            await laying_out.wait()
            monkeypatch.setattr(intake, "document", layout)
            body = {"text": TWO} if method == "POST" else None
            assert (await client.request(method, path, json=body)).status_code < 300
            go_on.set()
            assert (await late).status_code == (409 if method == "POST" else 404)
            reply = await client.get(path)
            assert reply.status_code == (200 if method == "POST" else 404)
            if method == "POST":
                name = path.rpartition("/")[2]
                assert server.app.documents.held.get(name).text.endswith(TWO.strip())

    with local() as server:
        asyncio.run(go(server))


def test_a_file_in_lines_of_base64(server: Local) -> None:
    data = base64.encodebytes(ONE.encode()).decode()
    assert data.count("\n") > 3
    reply = server.post(DOCUMENTS, {"file": data, "name": "cat.txt"})
    assert (reply.status_code, reply.json()["characters"]) == (201, len(ONE))
