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


def test_two_tabs_with_one_conversation(desk: Page) -> None:
    """What one adds the other has before it adds more; what one deletes is gone in both."""
    driver, first = desk.driver, desk.driver.current_window_handle
    desk.ask("One?")
    desk.until(lambda: desk.texts("#list bdi") == ["One?"])
    address = driver.current_url
    driver.switch_to.new_window("tab")
    try:
        driver.get(address)
        desk.until(lambda: desk.texts(".asked p") == ["One?"])
        desk.ask("Two?")
        second = driver.current_window_handle
        driver.switch_to.window(first)
        desk.until(lambda: desk.texts(".asked p") == ["One?", "Two?"])
        desk.ask("Three?")
        driver.switch_to.window(second)
        desk.until(lambda: desk.texts(".asked p") == ["One?", "Two?", "Three?"])
        desk.press("Delete “One?”")
        desk.press("Delete?")
        driver.switch_to.window(first)
        desk.until(lambda: not desk.all(".turn") and not desk.all("#list li"))
    finally:
        for window in driver.window_handles:
            if window != first:
                driver.switch_to.window(window)
                driver.close()
        driver.switch_to.window(first)


def test_a_full_disk(desk: Page, script: Script) -> None:
    """What the page cannot keep, it says that it does not."""
    origin = {"origin": desk.address.rstrip("/")}
    desk.driver.execute_cdp_cmd("Storage.overrideQuotaForOrigin", origin | {"quotaSize": 50_000})
    try:
        desk.ask("Short?")
        desk.until(lambda: desk.texts("#list bdi") == ["Short?"])
        assert not desk.one("#not-kept").is_displayed()
        script.text = "long " * 20_000
        desk.ask("Long?")
        desk.until(lambda: desk.one("#not-kept").is_displayed())
    finally:
        desk.driver.execute_cdp_cmd("Storage.overrideQuotaForOrigin", origin)


@pytest.mark.parametrize("theme", ["purple", 'a]b"'])
def test_a_theme_that_is_none(desk: Page, theme: str) -> None:
    """As another version, or another page of the same origin, may have left it."""
    desk.js("localStorage.setItem('inf-llm.theme', arguments[0])", theme)
    desk.driver.refresh()
    desk.until(lambda: desk.one("#model").text)
    assert desk.js("return document.querySelector('[name=theme]:checked').value") == "system"
    assert desk.ask("Who?") == "Yes."


def test_a_full_storage_of_settings(desk: Page) -> None:
    """A key that cannot be kept holds until the tab is closed."""
    code = "localStorage.fill = 'x'.repeat(5 * 2 ** 20 - 4 - localStorage.length * 50)"
    desk.js(code)
    desk.js("preferences.set('key', 'k'.repeat(500))")
    assert desk.js("return preferences.get('key')") == "k" * 500
    assert desk.js("return localStorage.getItem('inf-llm.key')") is None
    desk.js("localStorage.clear(); preferences.set('key', 'k')")
    assert desk.js("return [preferences.get('key'), preferences.unsaved.key ?? null]") == [
        "k",
        None,
    ]
