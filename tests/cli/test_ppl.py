"""`inf-llm ppl`: a table or JSON on standard output, for every type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inf_llm.config import load_config
from tests.checkpoints import SETTINGS
from tests.cli.conftest import Invoke


@pytest.mark.parametrize("kind", SETTINGS)
def test_table(invoke: Invoke, configs: dict[str, Path], book: Path, kind: str) -> None:
    done = invoke("ppl", "--config", configs[kind], "--file", book)
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows[1:-1]] == ["0-256", "256-512", "512-720", "all"]
    assert [row[1] for row in rows[1:-1]] == ["255", "256", "208", "719"]
    assert done.stdout.splitlines()[-1].startswith(
        "last bucket / the same tokens in fresh contexts: "
    )
    assert done.stderr.splitlines()[-1].startswith("predicted 719 tokens in ")


def test_json_has_the_numbers_and_what_made_them(invoke: Invoke, config: Path, book: Path) -> None:
    words = ("ppl", "-c", config, "-f", book, "--max-tokens", 600, "--json", "model.topk=2")
    done = invoke(*words)
    assert done.exit_code == 0
    record = json.loads(done.stdout)
    assert record["whole"]["tokens"] == 599
    assert [bucket["tokens"] for bucket in record["buckets"]] == [255, 256, 88]
    last = record["buckets"][-1]
    assert record["ratio"] == pytest.approx(last["nll"] / last["fresh"])
    assert record["config"] == load_config(config, ["model.topk=2"]).to_dict()


def test_reads_standard_input(invoke: Invoke, config: Path, book: Path) -> None:
    words = ("ppl", "--config", config, "--max-tokens", 300)
    piped = invoke(*words, input=book.read_bytes())
    assert piped.exit_code == 0
    assert piped.stdout == invoke(*words, "--file", book).stdout


@pytest.mark.parametrize(
    ("content", "words", "says"),
    [
        (b"", [], "is empty"),
        (b"\xff\xfd", [], "not text in UTF-8"),
        (b"x", [], "fewer than two tokens"),
        (b"text", ["--max-tokens", "1"], "2"),
        (b"text", ["chunk_size=1"], "chunk_size = 1"),
    ],
)
def test_refused(
    invoke: Invoke, config: Path, book: Path, content: bytes, words: list[str], says: str
) -> None:
    book.write_bytes(content)
    done = invoke("ppl", "-c", config, "-f", book, *words)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert "Traceback" not in done.stderr
