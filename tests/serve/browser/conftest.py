"""A server whose answers tests write; two browsers, a desk in the light and a phone in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("selenium", reason="needs selenium, of the extra 'dev'")

from tests.serve.browser.page import DESK, PHONE, Page, Script, scripted, visit, window


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Script, Any]]:
    with scripted(request_bytes=300_000) as started:
        yield started


@pytest.fixture
def script(server: tuple[str, Script, Any]) -> Script:
    """The server's, as new."""
    server[1].__dict__.update(Script().__dict__)
    return server[1]


@pytest.fixture(scope="module")
def desk_window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with window(DESK, tmp_path_factory.mktemp("desk")) as driver:
        yield driver


@pytest.fixture(scope="module")
def phone_window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with window(PHONE, tmp_path_factory.mktemp("phone"), dark=True) as driver:
        yield driver


@pytest.fixture
def desk(server: Any, script: Script, desk_window: Any) -> Iterator[Page]:
    with visit(desk_window, server[0]) as page:
        yield page


@pytest.fixture(params=["desk", "phone"])
def page(request: pytest.FixtureRequest, server: Any, script: Script) -> Iterator[Page]:
    """The page in either of them."""
    with visit(request.getfixturevalue(f"{request.param}_window"), server[0]) as page:
        yield page
