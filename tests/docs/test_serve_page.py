"""docs/serve.md: its clients run against a server, and it names every route, option and metric."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra 'serve'")
pytest.importorskip("starlette", reason="needs the extra 'serve'")
pytest.importorskip("prometheus_client", reason="needs the extra 'serve'")
pytest.importorskip("openai", reason="needs the official client, of the extra 'dev'")

import typer.main

import inf_llm
from inf_llm.cli import app
from inf_llm.config import SHIPPED_CONFIGS, load_config
from inf_llm.serve.messages import ROLES
from inf_llm.serve.params import CHAT_ONLY, SHARED
from inf_llm.serve.start import ServeOptions, build
from inf_llm.serve.web import WebServer, listen
from tests.docs.pages import ROOT, blocks

FILE = ROOT / "docs" / "serve.md"
PAGE = FILE.read_text(encoding="utf-8")
CODE = {block.name: block.code for block in blocks(FILE) if block.name}


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """The embedded model on a free port; the application and its address."""
    config = load_config(SHIPPED_CONFIGS / "demo-inf-llm.yaml")
    application = build(*inf_llm.load(config), config, ServeOptions())
    addresses: list[str] = []
    ready = threading.Event()
    where = listen("127.0.0.1", 0)
    web = WebServer(application, where, lambda to: (addresses.append(to), ready.set()), grace=1)
    thread = threading.Thread(target=web.run)
    application.worker.start()
    thread.start()
    assert ready.wait(60)
    yield application, addresses[0]
    web.should_exit = True
    thread.join()
    assert application.worker.stop(30)


def output(code: str, address: str, capsys: pytest.CaptureFixture[str]) -> str:
    exec(compile(code.replace("http://127.0.0.1:8000", address), "page", "exec"), {})
    return capsys.readouterr().out


def test_a_client(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(CODE["client.py"], server[1], capsys).strip()


def test_documents(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first, *passages = output(CODE["documents.py"], server[1], capsys).splitlines()
    assert "48213" in first
    assert any("The pass key is 48213." in passage for passage in passages)
    assert re.match(r"0\.\d+ \[\d+, \d+\] ", passages[0])


@pytest.mark.parametrize("name", ["structured.py", "functions.py", "responses.py"])
def test_shapes(server: Any, capsys: pytest.CaptureFixture[str], name: str) -> None:
    pytest.importorskip("llguidance", reason="needs the extra 'structured'")
    text = output(CODE[name], server[1], capsys).strip()
    assert {"structured.py": "title=", "functions.py": "add ", "responses.py": ""}[name] in text
    assert text


def test_every_route_is_named(server: Any) -> None:
    for route in server[0].routes:
        assert f"{route.path_format}`" in PAGE, route.path_format
        for method in sorted(route.methods - {"HEAD"}):
            assert re.search(rf"`{method}[ `].*{re.escape(route.path_format)}`", PAGE), route


def test_every_metric_is_named(server: Any) -> None:
    text = server[0].metrics.text().decode()
    for name in re.findall(r"^# TYPE (inf_llm_\w+)", text, re.MULTILINE):
        assert name.endswith("_created") or f"`{name}`" in PAGE, name


def test_every_parameter_and_option_is_named() -> None:
    for name in (*SHARED, *CHAT_ONLY, "prompt", "input", "instructions", *ROLES):
        assert f"`{name}`" in PAGE, name
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    for option in (name for each in command.params for name in each.opts):
        if option.startswith("--") and option not in ("--debug", "--help"):
            assert f"`{option}`" in PAGE, option
