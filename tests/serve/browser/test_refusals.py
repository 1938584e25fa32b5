"""What the page says where the server refuses, is busy, has lost a text, or is not there."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.browser import needs_browser
from tests.serve.browser.page import Page, Script, scripted, visit

pytestmark = [pytest.mark.slow, needs_browser]


def test_refused_and_lost_documents(desk: Page, server: Any, tmp_path: Path) -> None:
    """What the server says is shown; a document that has left can be uploaded again."""
    empty, large, good = (tmp_path / f"{name}.txt" for name in ("empty", "large", "good"))
    empty.touch()
    large.write_text("word " * 90_000)
    good.write_text("A good text. " * 9)
    desk.one("#files").send_keys(f"{empty}\n{large}")
    desk.until(lambda: len(desk.all("#documents li.failed")) == 2)
    shown = desk.texts("#documents li.failed .about")
    assert shown[0] == "The file is empty."
    assert shown[1] == "The request has more than 300,000 bytes, which is the limit."
    for _ in shown:
        desk.one("#documents li.failed button:last-child").click()
    assert any("413" in error for error in desk.errors())
    desk.until(lambda: not desk.all("#documents li"))
    desk.upload(good)
    for document in server[2].documents.held.all():
        server[2].documents.held.remove(document.id)
    desk.begin("What is it?")
    desk.until(lambda: desk.all("#documents li.gone"))
    desk.answered()
    assert "no longer on the server" in desk.one("#documents li.gone").text
    assert "upload it again" in desk.one(".note.bad").text
    desk.press("Upload again")
    desk.one("#files").send_keys(str(good))
    desk.until(lambda: desk.all("#documents li.ready"))
    desk.press("Try again")
    desk.until(lambda: desk.texts(".answer") == ["Yes."])
    assert all("404" in error for error in desk.errors())


def test_a_key_is_asked_for(phone_window: Any) -> None:
    with scripted(api_key="right") as (address, _, _), visit(phone_window, address) as page:
        page.begin("Who?")
        page.until(lambda: page.one("#key").is_displayed())
        assert page.js("return document.activeElement.id") == "key"
        page.one("#key").send_keys("right")
        page.press("Done")
        assert all("401" in error for error in page.errors())
        page.press("Try again")
        page.until(lambda: page.texts(".answer") == ["Yes."])


def test_a_busy_server(desk_window: Any) -> None:
    with scripted(client_queue=1) as (address, _, app), visit(desk_window, address) as page:
        app.admission.enter("127.0.0.1")
        page.begin("Who?")
        page.answered()
        assert page.one(".note.bad").text.startswith("The server is busy (1 requests")
        assert "try again in 5 s" in page.one(".note.bad").text
        assert all("429" in error for error in page.errors())
        app.admission.leave("127.0.0.1")
        page.press("Try again")
        page.until(lambda: page.texts(".answer") == ["Yes."])
        app.admission.enter("127.0.0.1")
        page.press("Another answer")
        page.until(lambda: page.texts(".note.bad"))
        assert page.texts(".answer") == ["Yes."]  # the one there is stays
        assert all("429" in error for error in page.errors())
        app.admission.leave("127.0.0.1")


def test_a_busy_server_while_a_text_is_read(desk: Page) -> None:
    """The page goes on to ask what has become of it."""
    desk.js(
        "const real = window.fetch; window.busy = 2;"
        "window.fetch = (path, ...more) => path.endsWith('/events') && window.busy-- > 0"
        "  ? Promise.resolve(new Response('{}', { status: 503 })) : real(path, ...more)"
    )
    desk.press("Paste a text")
    desk.one("#pasted").send_keys("The cat is called Tom.")
    desk.one("#paste-add").click()
    desk.until(lambda: "busy (503). Trying again" in "".join(desk.texts("#documents li .about")))
    desk.until(lambda: desk.all("#documents li.ready"))
    assert desk.js("return window.busy") < 0


def test_a_lost_connection(phone_window: Any) -> None:
    with ExitStack() as later:
        with scripted() as (address, _, _):
            page = later.enter_context(visit(phone_window, address))
            page.until(lambda: page.one("#model").get_attribute("textContent"))
        page.begin("Who?")
        page.answered()
        assert page.one(".note.bad").text == "The connection to the server was lost."
        assert "Try again" in page.texts(".actions button")
        page.errors()  # the browser says so too


def test_a_question_about_what_could_not_be_read(desk: Page, server: Any, tmp_path: Path) -> None:
    """It is not answered without the text."""
    file = tmp_path / "large.txt"
    file.write_text("word " * 90_000)
    desk.js(
        "document.querySelector('#question').value = 'What is it?';"
        "document.querySelector('#files').addEventListener('change', () =>"
        "  document.querySelector('#composer').requestSubmit())"
    )
    desk.one("#files").send_keys(str(file))
    desk.until(lambda: desk.texts(".note.bad"))
    assert desk.one(".note.bad").text.startswith("“large.txt” could not be read. The request has")
    assert all("413" in error for error in desk.errors())


def test_the_text_of_a_document_that_has_left(desk: Page, server: Any, script: Script) -> None:
    desk.press("Paste a text")
    desk.one("#pasted").send_keys("The cat is called Tom.")
    desk.one("#paste-add").click()
    desk.until(lambda: desk.all("#documents li.ready"))
    script.passages = [(0, 22)]
    desk.ask("Who?")
    server[2].documents.held.remove(script.questions[-1].documents[0])
    desk.one(".passage").click()
    desk.until(lambda: "no longer on the server" in desk.one("#reader-trouble").text)
    assert all("404" in error for error in desk.errors())
