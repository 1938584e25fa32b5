"""The chat page as a person uses it, on a server whose model says what a test lets it say."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from inf_llm.serve.answers import Answered, Choice, Delta
from inf_llm.serve.web import WebServer, listen
from tests.browser import browser
from tests.serve.inprocess import local

DESK, PHONE = (1280, 800), (390, 844)
SECONDS = 30
LINE = "Line {} is about a whale \U0001f40b & <b>its</b> song."
TEXT = "\n".join(LINE.format(number) for number in range(600))
AXE = Path(os.environ.get("AXE", "no axe-core"))


@dataclass
class Script:
    """Answers in place of the model's; what it is asked is noted.

    Attributes:
        text: of the next answers, which come word by word.
        pause: seconds before each word.
        reason: why answers end.
        passages: characters of the first document that they are read from.
        questions: the messages, and the sampling, of each question.
    """

    text: str = "Yes."
    pause: float = 0.0
    reason: str = "stop"
    passages: list[tuple[int, int]] = field(default_factory=list)
    questions: list[Any] = field(default_factory=list)

    def answer(self, question: Any, sources: Any, prompts: Any, job: Any) -> Iterator[int]:
        """In place of `Engine.answer`."""
        self.questions.append(question)
        for word in self.text.split(" "):
            time.sleep(self.pause)
            job.emit(Delta(0, word + " "))
            yield 1
        choice = Choice(0, self.text, self.reason, 3, self._recalled(sources))
        job.emit(choice)
        return Answered((choice,), 9, 5, 0, 0.1)

    def _recalled(self, sources: Any) -> list[dict[str, Any]]:
        document = next(iter(sources.documents), None)
        return [
            {
                "document": {"id": document.id, "name": document.name},
                "characters": [start, end],
                "label": document.label(start, end) or None,
                "score": 1.0 - number / 10,
                "text": document.text[start:end],
            }
            for number, (start, end) in enumerate(self.passages)
            if document
        ]


@contextmanager
def scripted(**options: Any) -> Iterator[tuple[str, Script, Any]]:
    """A server with scripted answers: its address, the script, the application."""
    with local(**options) as running:
        script = Script()
        running.app.engine.answer = script.answer
        addresses: queue.Queue[str] = queue.Queue()
        web = WebServer(running.app, listen("127.0.0.1", 0), addresses.put, grace=0.2)
        thread = threading.Thread(target=web.run)
        thread.start()
        yield addresses.get(timeout=SECONDS), script, running.app
        web.should_exit = True
        thread.join()


class Page:
    """What a person does with the page."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address
        driver.get(address)

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [each.text for each in self.all(selector)]

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait for a condition; nodes may be missing, or be replaced meanwhile."""
        passing = [NoSuchElementException, StaleElementReferenceException]
        return WebDriverWait(self.driver, SECONDS, 0.05, passing).until(lambda _: condition())

    def js(self, code: str, *values: Any) -> Any:
        return self.driver.execute_script(code, *values)

    def module(self, name: str, code: str, *values: Any) -> Any:
        """Run code with a module of the page as `it`."""
        version = self.one("script[type=module]").get_attribute("src").rsplit("/", 1)[0]
        start = f"const values = [...arguments], done = values.pop(); import('{version}/{name}.js')"
        end = f".then((it) => {{ {code} }}).then(done, (error) => done(`${{error}}`))"
        return self.driver.execute_async_script(start + end, *values)

    def errors(self) -> list[str]:
        """What the page has logged since the last call."""
        return [row["message"] for row in self.driver.get_log("browser")]

    def fits(self) -> bool:
        """Nothing sticks out at the side."""
        return bool(self.js("return document.documentElement.scrollWidth <= innerWidth"))

    def upload(self, *files: Path) -> None:
        before = len(self.all("#documents li"))
        self.one("#files").send_keys("\n".join(map(str, files)))
        self.until(lambda: len(self.all("#documents li.ready")) >= before + len(files))

    def begin(self, question: str, *, by_key: bool = True) -> None:
        """Ask, without waiting for the answer."""
        turns = len(self.all(".turn"))
        self.one("#question").send_keys(question, *([Keys.ENTER] if by_key else []))
        if not by_key:
            self.one("#send").click()
        self.until(lambda: len(self.all(".turn")) > turns)

    def ask(self, question: str, *, by_key: bool = True) -> str:
        """Ask, and give the answer."""
        self.begin(question, by_key=by_key)
        return self.answered()

    def answered(self) -> str:
        self.until(lambda: self.all(".turn") and not self.all(".turn.busy"))
        return str(self.texts(".answer")[-1])

    def press(self, label: str) -> None:
        """Press the last button of that name."""
        buttons = [each for each in self.all("button") if label in _names(each)]
        buttons[-1].click()


def _names(button: Any) -> tuple[str, ...]:
    return button.text, button.get_attribute("aria-label"), button.get_attribute("title")


@contextmanager
def window(size: tuple[int, int], profile: Path, *, dark: bool = False) -> Iterator[Any]:
    """A browser of that size."""
    with browser(*size, profile) as driver:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        yield driver


@contextmanager
def visit(driver: Any, address: str) -> Iterator[Page]:
    """The page in a browser that has kept nothing; it must log no error."""
    driver.get("about:blank")
    kept = {"origin": address, "storageTypes": "all"}
    driver.execute_cdp_cmd("Storage.clearDataForOrigin", kept)
    page = Page(driver, address)
    yield page
    assert page.errors() == []


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
