"""`benchmark/serve_soak.py`: a short one, and that it finds what it looks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark import serve_soak
from benchmark.load.server import Server, serving
from benchmark.load.soak import Canary, Soak
from benchmark.load.watch import Sample, figures, growth
from inf_llm.hf.load import DEMO

pytestmark = pytest.mark.skipif(
    not (DEMO / "model.safetensors").exists(), reason="no demo model here"
)
SHORT = ["--tokens", "2k", "--memory-budget", "40MB", "--disk-quota", "40MB"]


@pytest.mark.slow  # CI has one of five minutes
def test_a_short_soak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra 'serve'")
    file = tmp_path / "figures.json"
    code = serve_soak.main([*SHORT, "--minutes", "0.6", "--growth", "60MB", "--json", str(file)])
    output = capsys.readouterr()
    assert code == 0, output.err
    results = json.loads(file.read_text())
    assert sum(results["requests"].values()) > 12
    assert results["requests"]["known"] > 0
    assert results["last quarter"]["open files"] < 60
    assert results["last quarter"]["threads"] < 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """As `serve_soak` starts one."""
    pytest.importorskip("uvicorn", reason="needs the extra 'serve'")
    kept = ["--memory-dir", str(tmp_path_factory.mktemp("memory")), "--disk-quota", "40MB"]
    options = ["--config", "demo", "--memory-budget", "40MB", *kept, "model.dtype=float32"]
    with serving(options, 1) as running:
        yield running


@pytest.fixture
def shared_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The one that `serve_soak` is given."""
    monkeypatch.setattr(serve_soak, "serving", lambda options, threads: nullcontext(server))
    return server


def test_a_wrong_answer_is_found(
    shared_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Soak._canary

    async def another(self: Soak, number: int) -> Canary:
        return replace(await original(self, number), answer="something else")

    monkeypatch.setattr(Soak, "_canary", another)
    assert serve_soak.main([*SHORT, "--minutes", "0.05"]) == serve_soak.FOUND
    assert "instead of 'something else'" in capsys.readouterr().err


def test_growth_is_found(
    shared_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = iter(range(10**9, 10**12, 10**7))
    monkeypatch.setattr(type(shared_server), "memory", lambda self: next(taken))
    assert serve_soak.main([*SHORT, "--minutes", "0.05"]) == serve_soak.FOUND
    assert "memory grew by" in capsys.readouterr().err


def test_quarters() -> None:
    samples = [Sample(float(n), 1000 + 10 * n, 5, 7) for n in range(40)]
    assert growth(samples) == 300
    quarters = figures(samples)
    assert quarters["first quarter"]["bytes per minute"] == 600
    assert quarters["last quarter"]["most memory"] == 1390
    assert growth(samples[:1]) == 0
