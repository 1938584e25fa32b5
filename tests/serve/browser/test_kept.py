"""Conversations that the browser keeps."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser import needs_browser
from tests.serve.browser.page import Page, Script, faults, is_on_phone, visit

pytestmark = [pytest.mark.slow, needs_browser]


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


def test_a_browser_that_keeps_nothing(desk_window: Any, server: Any) -> None:
    """The page works, and says so."""
    none = "Object.defineProperty(window, 'indexedDB', { get() { throw new Error('none'); } })"
    added = desk_window.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": none})
    with visit(desk_window, server[0]) as page:
        page.until(lambda: page.one("#not-kept").is_displayed())
        page.ask("Who?")
        page.until(lambda: page.texts("#list bdi") == ["Who?"])
    desk_window.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_what_is_kept_is_bounded(desk: Page) -> None:
    """The oldest conversations leave."""
    code = """return (async () => {
        for (let n = 0; n < 203; n++)
            await it.save({ id: "c" + n, title: "t", updated: n, documents: [], turns: [] });
        const many = (await it.heads()).map((head) => head.id);
        const long = ["x".repeat(2e7)];
        await it.save({ id: "long", title: "t", updated: 150, documents: [], turns: long });
        const left = (await it.heads()).map((head) => head.id);
        return [many.length, many[0], many.at(-1), left.length, left.at(-1),
            await it.load("c9") ?? null];
    })()"""
    assert desk.module("store", code) == [200, "c202", "c3", 54, "long", None]
