"""Documents on the page: added, read, asked about, and followed to their passages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser import needs_browser
from tests.documents import pdf, with_documents
from tests.serve.browser.page import LINE, TEXT, Page, Script, faults
from tests.serve.inprocess import Local, occupied

pytestmark = [pytest.mark.slow, needs_browser]


@with_documents
def test_a_walk(page: Page, script: Script, tmp_path: Path) -> None:
    """A PDF is read, asked about, its passage followed; after a reload all is there."""
    assert faults(page) == []
    file = tmp_path / "whales & <i>.pdf"
    file.write_bytes(
        pdf(["Whales sing in the deep sea.", "The pass key is 48213, said the whale."])
    )
    page.upload(file)
    script.text, script.passages = "The key is **48213**.", [(0, 28), (30, 68)]
    assert page.ask("What is the key?") == "The key is 48213."
    assert page.one(".answer strong").text == "48213"
    assert page.texts(".passage .where")[0].startswith("page 2")
    page.all(".passage")[0].click()
    mark = page.until(lambda: page.one("mark.now"))
    assert mark.text == "The pass key is 48213, said the whale."
    assert page.one("#passage-now").text == "Passage 1 of 2 · page 2"
    assert faults(page) == []
    assert page.fits()
    page.one("#reader-close").click()
    page.driver.refresh()
    page.until(lambda: page.texts(".answer") == ["The key is 48213."])
    assert page.texts("#documents bdi") == [file.name]
    script.text = "Goodbye."
    assert page.ask("And then?", by_key=False) == "Goodbye."
    messages = [(each["role"], each["content"].strip()) for each in script.questions[-1].messages]
    assert messages == [
        ("user", "What is the key?"),
        ("assistant", "The key is **48213**."),
        ("user", "And then?"),
    ]
    assert faults(page) == []
    assert page.fits()


def test_a_passage_far_into_a_text(page: Page, script: Script, tmp_path: Path) -> None:
    """Characters are counted as the server counts them, and the mark comes into view."""
    file = tmp_path / "whales.txt"
    file.write_text(TEXT, encoding="utf-8")
    page.upload(file)
    start = TEXT.index("Line 500 ")
    script.passages = [(start, start + len(LINE)), (5, 40)]
    page.ask("Which line?")
    passage = page.all(".passage")[0]
    before = passage.rect["y"]
    passage.click()
    mark = page.until(lambda: page.one("mark.now"))
    assert abs(passage.rect["y"] - before) < 3
    assert mark.text == TEXT[start : start + len(LINE)]
    view, box = page.one("#text").rect, mark.rect
    page.until(lambda: view["y"] <= mark.rect["y"] <= view["y"] + view["height"])
    assert box["height"] > 0
    page.one("#passage-next").click()
    page.until(lambda: page.one("mark.now").text == TEXT[5:40])
    whole = (
        "return [...document.querySelectorAll('.piece')].map((piece) => piece.textContent).join('')"
    )
    page.js("document.querySelector('#text').scrollTop = 1e9")
    page.until(lambda: page.js("document.querySelector('#text').scrollTop = 1e9;" + whole) == TEXT)
    page.one("body").send_keys(Keys.ESCAPE)
    page.until(lambda: not page.one("#reader").is_displayed())
    assert page.js("return document.activeElement.className") == "passage"


def test_passages_that_say_nothing_or_touch(desk: Page) -> None:
    def row(start: int, end: int, text: str, score: float = 0.5, **more: Any) -> dict[str, Any]:
        document = {"id": "doc", "name": "a"}
        return {
            "document": document,
            "characters": [start, end],
            "text": text,
            "score": score,
        } | more

    recalled = [
        row(0, 3, "cul", 0.9),
        row(100, 120, "one two three four f"),
        row(110, 131, "ree four five six sev", label="page 2"),
        row(132, 140, "eight ni", label="page 2"),
        row(141, 165, "on another page with them", label="page 3"),
        row(300, 322, "Tom lives in Amsterdam"),
        row(400, 406, "今天天气很好"),
        {**row(1, 2, "outside of all documents"), "document": None, "characters": None},
    ]
    long = "It rains. " * 20 + "Rex lives in Berlin."
    recalled.append(row(500, 500 + len(long), long))
    code = "return it.passagesOf(values[0], 'In Amsterdam, not in Berlin.')"
    found = desk.module("passages", code, recalled)
    assert [each["start"] for each in found] == [300, 500, 100, 141, 400]
    assert found[1]["quote"] == "… Rex lives in Berlin."
    assert found[2]["end"] == 140
    assert found[2]["quote"] == "one two three four five six sev eight ni"
    assert found[2]["labels"] == ["page 2"]


def test_several_documents(page: Page, script: Script, tmp_path: Path) -> None:
    """One is dropped on the page, one pasted; passages of both, one after another."""
    page.js(
        "const data = new DataTransfer();"
        "data.items.add(new File([arguments[0]], 'dropped.md'));"
        "dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }))",
        "# Fish\n\nA herring is silver and swims in a swarm.",
    )
    page.until(lambda: page.all("#documents li.ready"))
    paste = (
        "const data = new DataTransfer(); data.setData('text/plain', arguments[0]);"
        "document.querySelector('#question').dispatchEvent("
        "new ClipboardEvent('paste', { clipboardData: data, cancelable: true }))"
    )
    page.js(paste, "Short, so it belongs to the question.")
    page.js(paste, "The cat is called Tom and sleeps all day.\n" + "It sleeps. " * 400)
    page.until(lambda: len(page.all("#documents li.ready")) == 2)
    script.passages = [(0, 40)]
    page.ask("Who?")
    assert len(script.questions[-1].documents) == 2
    assert page.texts(".passage .where") == ["dropped.md · Fish · 0 % into the text"]
    assert page.texts("#documents bdi") == [
        "dropped.md",
        "The cat is called Tom and sleeps all day. It sleeps. It slee",
    ]
    page.all("#documents li:last-child button")[-1].click()
    page.until(lambda: page.texts("#documents bdi") == ["dropped.md"])
    page.ask("And now?")
    assert len(script.questions[-1].documents) == 1


def test_reading_goes_on_over_a_reload(desk: Page, server: Any, tmp_path: Path) -> None:
    """A question asked meanwhile waits for it."""
    file = tmp_path / "whales.txt"
    file.write_text(TEXT, encoding="utf-8")
    gate = occupied(Local(server[2]))
    desk.one("#files").send_keys(str(file))
    desk.until(lambda: desk.all("#documents li.reading"))
    desk.driver.refresh()
    desk.until(lambda: desk.one("#documents li.reading .about").text == "waiting to be read")
    desk.begin("What is it?")
    assert desk.texts(".note") == ["Waiting for the model…"]
    gate.set()
    desk.until(lambda: desk.texts(".answer") == ["Yes."])
    assert desk.texts("#documents li.ready .about") == [f"{len(TEXT):,} characters"]


def test_a_text_is_pasted_in_its_panel(page: Page, script: Script) -> None:
    page.press("Paste a text")
    assert faults(page) == []
    page.one("#paste-add").click()
    assert page.one("#pasting").is_displayed()  # there is no text yet
    page.one("#pasted").send_keys("The cat is called Tom.")
    page.one("#pasted-name").send_keys("Cats")
    page.one("#paste-add").click()
    page.until(lambda: page.texts("#documents li.ready bdi") == ["Cats"])
    page.one("#documents .name").click()
    page.until(lambda: page.texts(".piece") == ["The cat is called Tom."])
