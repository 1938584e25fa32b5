"""Take the pictures docs/chat.png and docs/recall.png, with the embedded model.

    python scripts/make_pictures.py

Needs the extras [serve] and [dev], Pillow, chromium and chromedriver. The pictures show the real
pages, after a text was read and a question asked; in the chat, the best passage is selected.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import inf_llm
from inf_llm.config import SHIPPED_CONFIGS, load_config
from inf_llm.demo import haystack_text
from inf_llm.generation import Session, save_report
from inf_llm.serve.start import ServeOptions, build
from inf_llm.serve.web import WebServer, listen
from tests.browser import browser

DOCS = Path(__file__).resolve().parent.parent / "docs"
CONFIG = SHIPPED_CONFIGS / "demo-inf-llm.yaml"
SENTENCES, SECONDS, COLOURS, MAX_BYTES = 200, 300, 256, 200_000
FACTS = {
    0.3: "The pass key is 48213. Remember it. 48213 is the pass key",
    0.7: "The sequence of digits is 8830417725. Remember it. 8830417725 is the sequence of digits",
}


def book() -> str:
    """Return English prose with the facts at their depths."""
    sentences = haystack_text().split(". ")[:SENTENCES]
    for depth, fact in FACTS.items():
        sentences.insert(int(depth * SENTENCES), fact)
    return ". ".join(sentences)


def main() -> None:
    """Take both pictures."""
    config = load_config(CONFIG)
    model, tokenizer = inf_llm.load(config)
    with tempfile.TemporaryDirectory() as folder:
        take_recall(model, tokenizer, Path(folder))
        with serving(model, tokenizer, config) as address:
            take_chat(address, Path(folder))


def take_recall(model: Any, tokenizer: Any, folder: Path) -> None:
    """Take a picture of the report of one answer, with its best passage."""
    session = Session(model, tokenizer)
    question = "What is the sequence of digits? The sequence of digits is"
    session.read(f"{book()}\n{question}")
    prompt_tokens = len(session.ids)
    with inf_llm.trace(model, prompts=False) as trace:
        session.ask(max_new_tokens=12)
    file = folder / "recall.html"
    save_report(trace, session.ids, tokenizer, file, prompt_tokens=prompt_tokens, title=question)
    with browser(1100, 1330, folder / "recall") as page:
        page.get(file.as_uri())
        save(page, DOCS / "recall.png")


def take_chat(address: str, folder: Path) -> None:
    """Take a picture of the chat page after a question, with the best passage in the text."""
    text = folder / "book.txt"
    text.write_text(book(), encoding="utf-8")
    with browser(1280, 800, folder / "chat") as page:

        def one(selector: str) -> Any:
            return page.find_element(By.CSS_SELECTOR, selector)

        def until(condition: Any) -> None:
            WebDriverWait(page, SECONDS).until(lambda _: condition())

        def there(selector: str) -> bool:
            return bool(page.find_elements(By.CSS_SELECTOR, selector))

        page.get(address)
        one("#files").send_keys(str(text))
        until(lambda: there("#documents li.ready"))
        one("#question").send_keys("What is the pass key?")
        one("#send").click()
        until(lambda: there(".turn") and not there(".turn.busy"))
        one(".passage").click()
        until(lambda: there("mark.now"))
        time.sleep(1)  # the text scrolls into view
        save(page, DOCS / "chat.png")


@contextmanager
def serving(model: Any, tokenizer: Any, config: Any) -> Iterator[str]:
    """Run the server on a free port; yield its address."""
    options = ServeOptions(port=0, answer_tokens=32, grace=1)
    application = build(model, tokenizer, config, options)
    addresses: list[str] = []
    ready = threading.Event()

    def on_ready(address: str) -> None:
        addresses.append(address)
        ready.set()

    web = WebServer(application, listen(options.host, options.port), on_ready, options.grace)
    thread = threading.Thread(target=web.run, args=([web.listening],))
    application.worker.start()
    thread.start()
    try:
        ready.wait(SECONDS)
        yield addresses[0]
    finally:
        web.should_exit = True
        thread.join()
        application.worker.stop(10)


def save(page: Any, file: Path) -> None:
    """Save a screenshot with few colours, so that its file is small."""
    page.save_screenshot(str(file))
    with Image.open(file) as picture:
        reduced = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
    reduced.save(file, optimize=True)
    size = file.stat().st_size
    print(f"{file.name}: {size:,} bytes")
    if size > MAX_BYTES:
        sys.exit(f"{file} is larger than {MAX_BYTES:,} bytes: show less, or in fewer colours")


if __name__ == "__main__":
    main()
