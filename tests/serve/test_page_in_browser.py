"""The chat page in a real browser: a document is added, asked about, and followed to its passages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="needs selenium, of the extra 'dev'")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser import needs_browser
from tests.documents import pdf, with_documents
from tests.serve.page import DESK, PHONE, Page, Script, opened, scripted

pytestmark = [pytest.mark.slow, needs_browser]

LINE = "Line {} is about a whale \U0001f40b & <b>its</b> song."
TEXT = "\n".join(LINE.format(number) for number in range(900))
AXE = Path(os.environ.get("AXE", "no axe-core"))


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Script, Any]]:
    with scripted(request_bytes=300_000) as started:
        yield started


@pytest.fixture
def script(server: tuple[str, Script, Any]) -> Script:
    """The server's, as new."""
    server[1].__dict__.update(Script().__dict__)
    return server[1]


@pytest.fixture(params=[(DESK, False), (PHONE, True)], ids=["desk", "phone"])
def page(request: pytest.FixtureRequest, server: Any, script: Script, tmp_path: Path) -> Iterator[Page]:
    size, dark = request.param
    with opened(server[0], size, tmp_path / "profile", dark=dark) as page:
        yield page


@pytest.fixture
def desk(server: Any, script: Script, tmp_path: Path) -> Iterator[Page]:
    with opened(server[0], DESK, tmp_path / "profile") as page:
        yield page


def is_on_phone(page: Page) -> bool:
    return bool(page.one("#side-open").is_displayed())


def faults(page: Page) -> list[str]:
    """What axe-core finds that is serious or critical."""
    if not AXE.exists():
        return []
    page.js(AXE.read_text(encoding="utf-8"))
    found = page.driver.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, { resultTypes: ['violations'] }).then((r) => done(r.violations))"
    )
    return [
        f"{row['id']}: {row['help']}: {row['nodes'][0]['html']}"
        for row in found
        if row["impact"] in ("serious", "critical")
    ]


@with_documents
def test_a_walk(page: Page, script: Script, tmp_path: Path) -> None:
    """A PDF is read, asked about, its passage followed; after a reload all is there."""
    assert faults(page) == []
    file = tmp_path / "whales & <i>.pdf"
    file.write_bytes(pdf(["Whales sing in the deep sea.", "The pass key is 48213, said the whale."]))
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
    said = [(each["role"], each["content"].strip()) for each in script.asked[-1].messages]
    assert said == [
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
    start = TEXT.index("Line 700 ")
    script.passages = [(start, start + len(LINE)), (5, 40)]
    page.ask("Which line?")
    page.all(".passage")[0].click()
    mark = page.until(lambda: page.one("mark.now"))
    assert mark.text == TEXT[start : start + len(LINE)]
    view, box = page.one("#text").rect, mark.rect
    page.until(lambda: view["y"] <= mark.rect["y"] <= view["y"] + view["height"])
    assert box["height"] > 0
    page.one("#passage-next").click()
    page.until(lambda: page.one("mark.now").text == TEXT[5:40])
    whole = "return [...document.querySelectorAll('.piece')].map((piece) => piece.textContent).join('')"
    page.js("document.querySelector('#text').scrollTop = 1e9")
    page.until(lambda: page.js("document.querySelector('#text').scrollTop = 1e9;" + whole) == TEXT)
    page.driver.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    page.until(lambda: not page.one("#reader").is_displayed())
    assert page.js("return document.activeElement.className") == "passage"


def test_passages_that_say_nothing_or_touch(desk: Page) -> None:
    def row(start: int, end: int, text: str, score: float = 0.5, **more: Any) -> dict[str, Any]:
        document = {"id": "doc", "name": "a"}
        return {"document": document, "characters": [start, end], "text": text, "score": score} | more

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
    found = desk.module("passages", "return it.passagesOf(values[0], 'In Amsterdam.')", recalled)
    assert [(each["start"], each["end"]) for each in found] == [(300, 322), (100, 140), (141, 165), (400, 406)]
    assert found[1]["quote"] == "one two three four five six sev eight ni"
    assert found[1]["labels"] == ["page 2"]


HOSTILE = """Text <img src=x onerror=alert(1)> <script>alert(2)</script>

[link](javascript:alert(3)) ![picture](https://example.org/a.png) [good](https://example.org)

```python
print("<b>")
```

| a | b |
|---|---|
| 1 | 2 |

- [ ] open"""


def test_markdown_of_an_answer(desk: Page, script: Script) -> None:
    """Code can be copied; HTML is text, pictures are links, and no script gets in."""
    script.text = HOSTILE
    desk.ask("Show me.")
    answer = desk.one(".answer")
    assert "<img src=x onerror=alert(1)>" in answer.text
    assert desk.all(".answer img, .answer script, .answer [onerror]") == []
    hrefs = [each.get_attribute("href") for each in desk.all(".answer a[href]")]
    assert hrefs == ["https://example.org/a.png", "https://example.org/"]
    assert desk.one(".answer td").text == "1"
    assert desk.one(".answer .bar").text == "python"
    desk.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    desk.press("Copy the code")
    read = "const done = arguments[0]; navigator.clipboard.readText().then(done, done)"
    desk.until(lambda: desk.driver.execute_async_script(read) == 'print("<b>")\n')
    assert faults(desk) == []


def test_stop_go_on_ask_again_and_change(page: Page, script: Script) -> None:
    script.text, script.pause = "word " * 400, 0.05
    page.begin("Talk.")
    page.until(lambda: "word word" in page.one(".answer").text)
    page.one("#question").send_keys(Keys.ESCAPE)
    page.answered()
    assert page.one(".note").text == "Stopped."
    script.text, script.pause, script.reason = "and on", 0.0, "length"
    page.press("Go on")
    page.until(lambda: page.one(".answer").text.endswith("word and on"))
    page.until(lambda: page.one(".note").text == "The answer was cut at its longest length.")
    assert [each["role"] for each in script.asked[-1].messages] == ["user", "assistant", "user"]
    script.text, script.reason = "Once more.", "stop"
    page.press("Another answer")
    page.until(lambda: page.texts(".answer") == ["Once more."])
    assert [each["content"] for each in script.asked[-1].messages] == ["Talk."]
    page.ask("A second question")
    page.all(".asked > button")[0].click()
    field = page.one(".asked textarea")
    field.clear()
    field.send_keys("Another first question", Keys.ENTER)
    page.until(lambda: page.texts(".asked p") == ["Another first question"])
    page.answered()
    assert [each["content"] for each in script.asked[-1].messages] == ["Another first question"]


def test_another_answer_is_another(desk: Page, script: Script) -> None:
    """With temperature 0 it would be the same."""
    desk.ask("Say.")
    assert script.asked[-1].sampling.temperature == 0
    desk.press("Another answer")
    desk.until(lambda: len(script.asked) == 2)
    desk.answered()
    assert script.asked[-1].sampling.temperature == 0.7
    desk.until(lambda: "temperature 0.7" in desk.one(".note").text)


def test_the_view_stays_where_the_reader_is(page: Page, script: Script) -> None:
    script.text, script.pause = "a paragraph of words\n\n" * 150, 0.01
    page.begin("Talk.")
    top = "return document.querySelector('#talk').scrollTop"
    height = "return document.querySelector('#talk').scrollHeight"
    page.until(lambda: page.js(top) > 300)  # it follows
    page.js("document.querySelector('#talk').scrollTop = 120")
    page.until(lambda: page.one("#newest").is_displayed())
    before = page.js(height)
    page.until(lambda: page.js(height) > before + 200)
    assert page.js(top) == 120
    page.one("#newest").click()
    page.until(lambda: page.js(top) > 300)
    page.answered()
    end = "const t = document.querySelector('#talk'); return t.scrollHeight - t.scrollTop - t.clientHeight"
    page.until(lambda: page.js(end) < 9)


def test_other_directions_and_texts_without_spaces(page: Page, script: Script) -> None:
    script.text = "שלום עולם\n\nHello world\n\n" + "x" * 900
    page.ask("מה זה? " + "y" * 300)
    direction = "return [...document.querySelectorAll('.answer p, .asked p')].map((p) => getComputedStyle(p).direction)"
    assert page.js(direction) == ["rtl", "rtl", "ltr", "ltr"]
    assert page.fits()


def test_conversations_are_kept_and_deleted(page: Page, script: Script) -> None:
    def listed() -> list[str]:
        return [each.get_attribute("textContent") for each in page.all("#list bdi")]

    def side() -> None:
        if is_on_phone(page):
            page.one("#side-open").click()
            page.until(lambda: page.one("#new").is_displayed())

    page.ask("The first one")
    side()
    page.one("#new").click()
    page.until(lambda: not page.all(".turn"))
    page.ask("The second one")
    page.until(lambda: listed() == ["The second one", "The first one"])
    side()
    page.until(lambda: page.one("#list li:last-child .name").is_displayed())
    page.one("#list li:last-child .name").click()
    page.until(lambda: page.texts(".asked p") == ["The first one"])
    side()
    assert faults(page) == []
    page.press("Delete “The first one”")
    page.press("Delete?")
    page.until(lambda: listed() == ["The second one"])
    page.driver.refresh()
    page.until(lambda: listed() == ["The second one"])


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


def test_settings_reach_the_model(page: Page, script: Script) -> None:
    if is_on_phone(page):
        page.one("#side-open").click()
        page.until(lambda: page.one("#settings-open").is_displayed())
    page.one("#settings-open").click()
    page.one("#system").send_keys("Be brief.")
    page.one("#length").send_keys("7")
    page.one("#temperature").send_keys(Keys.ARROW_RIGHT * 3)
    colour = "return getComputedStyle(document.body).backgroundColor"
    page.one("[name=theme][value=light]").click()
    light = page.js(colour)
    page.one("[name=theme][value=dark]").click()
    assert page.js(colour) != light
    assert faults(page) == []
    page.press("Done")
    page.driver.refresh()
    page.ask("Say.")
    asked = script.asked[-1]
    assert [each["role"] for each in asked.messages] == ["system", "user"]
    assert (asked.sampling.max_tokens, asked.sampling.temperature) == (7, pytest.approx(0.3))


def test_a_key_is_asked_for(tmp_path: Path) -> None:
    with (
        scripted(api_key="right") as (address, _, _),
        opened(address, PHONE, tmp_path / "profile") as page,
    ):
        page.begin("Who?")
        page.until(lambda: page.one("#key").is_displayed())
        assert page.js("return document.activeElement.id") == "key"
        page.one("#key").send_keys("right")
        page.press("Done")
        page.errors()  # the refusal is among them, rightly
        page.press("Try again")
        page.until(lambda: page.texts(".answer") == ["Yes."])


def test_reading_goes_on_over_a_reload(desk: Page, server: Any, tmp_path: Path) -> None:
    """A question asked meanwhile waits for it."""
    file = tmp_path / "whales.txt"
    file.write_text(TEXT * 3, encoding="utf-8")
    desk.one("#files").send_keys(str(file))
    desk.until(lambda: desk.all("#documents li.reading"))
    desk.until(lambda: desk.js("return location.hash"))
    desk.driver.refresh()
    row = desk.until(lambda: desk.one("#documents li"))
    assert row.get_attribute("class") == "reading"
    desk.begin("What is it?")
    assert desk.all("#documents li.reading")
    desk.until(lambda: desk.all("#documents li.ready"))
    desk.until(lambda: desk.texts(".answer") == ["Yes."])


def test_a_lost_connection(tmp_path: Path) -> None:
    with opened_after_its_server_left(tmp_path) as page:
        page.begin("Who?")
        page.answered()
        assert page.one(".note.bad").text == "The connection to the server was lost."
        page.errors()
        assert "Try again" in page.texts(".actions button")


def opened_after_its_server_left(folder: Path) -> Any:
    from contextlib import contextmanager

    @contextmanager
    def go() -> Iterator[Page]:
        with scripted() as (address, _, _):
            opening = opened(address, PHONE, folder / "profile")
            page = opening.__enter__()
            page.until(lambda: page.one("#model").get_attribute("textContent"))
        try:
            yield page
        finally:
            opening.__exit__(None, None, None)

    return go()
