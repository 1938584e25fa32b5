"""The chat page in a real browser, at a desk and on a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser as opened
from tests.browser import needs_browser
from tests.serve.conftest import Server

pytest.importorskip("selenium", reason="needs selenium, of the extra 'dev'")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = [pytest.mark.slow, needs_browser]

TEXT = "\n".join(f"{line}: the \U0001f40b swims & <b>spouts</b> all day." for line in range(120))


@pytest.fixture(params=[(1360, 860), (390, 800)], ids=["desk", "phone"])
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with opened(*request.param, tmp_path / "profile") as driver:
        yield driver


class Page:
    """What a person does with the page."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        driver.get(address)

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def until(self, condition: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, 120).until(lambda _: condition())

    def show(self, which: str) -> None:
        button = self.one(f"[data-show={which}]")
        if button.is_displayed():
            button.click()

    def fits(self) -> bool:
        """Nothing sticks out at the side."""
        script = "return document.documentElement.scrollWidth <= innerWidth"
        return bool(self.driver.execute_script(script))

    def read(self, file: Path) -> None:
        self.one("#file").send_keys(str(file))
        self.until(lambda: self.one("#size").text)
        self.one("#read").click()
        self.until(lambda: self.one("#view").is_displayed())

    def ask(self, question: str, *, keys: bool) -> None:
        asked = len(self.all(".answer.done"))
        self.show("questions")
        self.one("#question").send_keys(question, *([Keys.ENTER] if keys else []))
        if not keys:
            self.one("#send").click()
        self.until(lambda: len(self.all(".answer.done")) > asked)


def test_read_ask_and_see_what_was_recalled(browser: Any, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "whales <i>.txt"
    file.write_text(TEXT, encoding="utf-8")
    page = Page(browser, server.address)
    assert page.fits()
    page.read(file)
    assert "whales <i>.txt" in page.one("#title").get_attribute("textContent")
    assert browser.execute_script("return document.querySelector('#text').textContent") == TEXT
    page.ask("What swims?", keys=True)
    page.ask("And spouts?", keys=False)
    assert len(page.all(".turn")) == 2
    assert "tokens were in memory" in page.all(".turn > .quiet")[1].text
    passages = page.all(".turn:last-child .passage:not(:disabled)")
    assert passages
    said = passages[0].find_element(By.TAG_NAME, "q").text.split()
    passages[0].click()
    mark = page.one("mark.now")
    page.until(lambda: mark.is_displayed())
    assert set(said[1:-1]) <= set(mark.text.split())
    view, box = page.one("#text").rect, mark.rect
    assert view["y"] <= box["y"] <= view["y"] + view["height"]
    assert page.fits()
    page.show("questions")
    page.one("#clear").click()
    assert not page.all(".turn, mark")


def test_a_key_is_asked_for(browser: Any, started: Callable[..., Server], tmp_path: Path) -> None:
    server = started("--api-key", "right", "--max-new-tokens", "4")
    page = Page(browser, server.address)
    page.one("#paste").send_keys("A short text.")
    page.one("#read").click()
    page.until(lambda: page.one("#keyed").is_displayed())
    page.one("#key").send_keys("right")
    page.show("document")
    page.one("#read").click()
    page.until(lambda: page.one("#view").is_displayed())
    page.driver.get_log("browser")  # the refusal is there, rightly
    page.ask("What?", keys=True)
