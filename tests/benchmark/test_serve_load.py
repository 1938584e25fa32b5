"""`benchmark/serve_load.py`: each scenario, small, on a server of the embedded model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmark import serve_load
from benchmark.load.client import Answer, Client
from benchmark.load.figures import by_kind, percentile
from benchmark.load.scenarios import SCENARIOS, Load, connections
from benchmark.load.server import Server, serving
from benchmark.load.texts import Texts
from inf_llm.config import load_config
from inf_llm.errors import InfLLMError
from inf_llm.hf.load import DEMO, load_tokenizer

pytestmark = pytest.mark.skipif(
    not (DEMO / "model.safetensors").exists(), reason="no demo model here"
)


@pytest.fixture(scope="module")
def texts() -> Texts:
    return Texts(load_tokenizer(load_config("demo")), 0)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("uvicorn", reason="needs the extra 'serve'")
    with serving(["--config", "demo"], 1) as running:
        yield running


def _figures(server: Server, texts: Texts, name: str, **more: Any) -> dict[str, Any]:
    how = {"clients": 3, "tokens": 3000, "answer": 6, "seconds": 3.0, "rate": 5.0} | more
    return asyncio.run(SCENARIOS[name](Load(server, texts, **how)))


def test_questions_while_a_text_is_read(server: Server, texts: Texts) -> None:
    figures = _figures(server, texts, "book", tokens=3000)
    assert 2700 < figures["tokens"] < 3300
    assert figures["questions"] >= 1
    assert set(figures["times"]) == {"p50", "p95", "p99"}
    for name in ("text, times", "text, times in processor time"):
        assert len(figures[name]) == 1
        assert 0.3 < figures[name][0] < 30  # of a small text: not how fast it is


def test_texts_that_are_read_at_once_have_even_shares(server: Server, texts: Texts) -> None:
    figures = _figures(server, texts, "readers", tokens=3000)
    low, high = figures["tokens"]
    assert 2 < high / low < 4
    assert 0 < figures["times its fair share"]["worst"] < 2


def test_answers_at_once_are_those_of_one_at_a_time(server: Server, texts: Texts) -> None:
    figures = _figures(server, texts, "decoders")
    assert figures["read"] > 2700
    assert figures["times"] > 0
    assert len(figures["tokens"]) == 3


def test_a_mixed_load_gives_a_row_of_each_kind(server: Server, texts: Texts) -> None:
    figures = _figures(server, texts, "mixed", tokens=1000)
    assert figures["question"]["first word"]["p50"] > 0
    assert {"question", "chat", "book"} <= set(figures)
    assert figures["tokens said per second"] > 0


def test_what_a_server_refuses_ends_the_measurement(server: Server) -> None:
    async def ask() -> None:
        async with connections() as http:
            await Client(server, http, "question").ask("", 4)

    with pytest.raises(InfLLMError, match="400"):
        asyncio.run(ask())


def test_a_server_that_does_not_start_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve_load.main(["--config", "demo", "--model", "/nowhere/at/all"]) == 2
    assert "/nowhere/at/all" in capsys.readouterr().err


def test_the_command_writes_its_figures(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    def fake_serving(options: list[str], threads: int) -> Any:
        started.append(options)
        return nullcontext(server)

    monkeypatch.setattr(serve_load, "serving", fake_serving)
    file = tmp_path / "figures.json"
    small = ["--scenario", "decoders", "--clients", "2", "--tokens", "1k", "--answer", "4"]
    more = ["--one-at-a-time", "--json", str(file), "model.topk=90"]
    assert serve_load.main([*small, *more]) == 0
    assert json.loads(file.read_text())["clients"] == 2
    assert started == [["--config", "demo", "--max-active", "1", "model.topk=90"]]


def test_percentiles_and_kinds() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert percentile([3.0], 0.99) == 3
    answers = [Answer(kind, first=first) for kind, first in (("a", 1.0), ("b", 2.0), ("a", None))]
    rows = by_kind(answers)
    assert rows["a"]["answers"] == 2
    assert rows["b"]["first word"] == {"p50": 2.0, "p95": 2.0, "p99": 2.0}
