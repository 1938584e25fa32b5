"""Questions and answers on the page."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser import needs_browser
from tests.serve.browser.page import Page, Script, faults, is_on_phone

pytestmark = [pytest.mark.slow, needs_browser]


LEFT_BELOW = """const talk = document.querySelector('#talk');
    return talk.scrollHeight - talk.scrollTop - talk.clientHeight"""
DIRECTIONS = """return [...document.querySelectorAll('.answer p, .asked p')].map((p) =>
    getComputedStyle(p).direction)"""
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
    assert script.questions[-1].continues
    assert [each["role"] for each in script.questions[-1].messages] == ["user", "assistant"]
    script.text, script.reason = "Once more.", "stop"
    page.press("Another answer")
    page.until(lambda: page.texts(".answer") == ["Once more."])
    assert [each["content"] for each in script.questions[-1].messages] == ["Talk."]
    page.ask("A second question")
    page.all(".asked > button")[0].click()
    field = page.one(".asked textarea")
    field.clear()
    field.send_keys("Another first question", Keys.ENTER)
    page.until(lambda: page.texts(".asked p") == ["Another first question"])
    page.answered()
    assert [each["content"] for each in script.questions[-1].messages] == ["Another first question"]


def test_another_answer_is_another(desk: Page, script: Script) -> None:
    """With temperature 0 it would be the same."""
    desk.ask("Say.")
    assert script.questions[-1].sampling.temperature == 0
    desk.press("Another answer")
    desk.until(lambda: len(script.questions) == 2)
    desk.answered()
    assert script.questions[-1].sampling.temperature == 0.7
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
    page.until(lambda: page.js(LEFT_BELOW) < 9)


def test_other_directions_and_texts_without_spaces(page: Page, script: Script) -> None:
    script.text = "שלום עולם\n\nHello world\n\n" + "x" * 900
    page.ask("מה זה? " + "y" * 300)
    assert page.js(DIRECTIONS) == ["rtl", "rtl", "ltr", "ltr"]
    assert page.fits()


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
    question = script.questions[-1]
    assert [each["role"] for each in question.messages] == ["system", "user"]
    assert (question.sampling.max_tokens, question.sampling.temperature) == (7, pytest.approx(0.3))


def test_by_keyboard_alone(desk: Page, script: Script) -> None:
    """What has the focus is seen; a line can be broken; the panel of settings gives it back."""
    desk.one("body").send_keys(Keys.TAB)
    assert desk.js("return document.activeElement.textContent") == "Skip to the question"
    desk.js("return document.activeElement").send_keys(Keys.ENTER)
    desk.until(lambda: desk.js("return document.activeElement.id") == "question")
    desk.one("#question").send_keys("One", Keys.SHIFT, Keys.ENTER, Keys.NULL, "Two", Keys.ENTER)
    desk.answered()
    assert script.questions[-1].messages[0]["content"] == "One\nTwo"
    desk.one("#question").send_keys(Keys.TAB)
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert desk.js("return document.activeElement.id") == "send"
    assert desk.js(outline) == "solid"
    desk.one("#settings-open").send_keys(Keys.ENTER)
    desk.until(lambda: desk.one("#settings").is_displayed())
    desk.js("return document.activeElement").send_keys(Keys.ESCAPE)
    desk.until(lambda: desk.js("return document.activeElement.id") == "settings-open")
