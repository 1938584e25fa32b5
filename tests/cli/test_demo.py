"""`inf-llm demo`: its rows, its files, its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke

SMALL = ("demo", "--lengths", "300,600", "--types", "stream-lm,inf-llm", "--samples", 2)


def test_rows_are_the_same_for_the_same_seed(invoke: Invoke, tmp_path: Path) -> None:
    rows = []
    for name in ("a.json", "b.json"):
        done = invoke(*SMALL, "--json", tmp_path / name)
        assert done.exit_code == 0, done.stderr
        rows.append(json.loads((tmp_path / name).read_text()))
    times = ("seconds", "tokens_per_second")
    first, again = ([{k: v for k, v in row.items() if k not in times} for row in r] for r in rows)
    assert first == again
    assert [(row["type"], row["length"], row["n"]) for row in first] == [
        ("stream-lm", 300, 2),
        ("inf-llm", 300, 2),
        ("stream-lm", 600, 2),
        ("inf-llm", 600, 2),
    ]


def test_settings_can_be_overruled(invoke: Invoke, tmp_path: Path) -> None:
    bytes_ = []
    for n_local in (128, 64):
        words = ("--json", tmp_path / "rows.json", f"model.n_local={n_local}")
        done = invoke("demo", "--lengths", "400", "--types", "stream-lm", "-n", 1, *words)
        assert done.exit_code == 0, done.stderr
        bytes_.append(json.loads((tmp_path / "rows.json").read_text())[0]["device_kv_bytes"])
    assert bytes_[1] < bytes_[0]


def test_origin_is_left_out_where_it_would_take_too_long(invoke: Invoke) -> None:
    done = invoke("demo", "--lengths", "9k", "--types", "origin", "--samples", 1)
    assert done.exit_code == 0
    assert "origin is not run at 9k" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lengths", "4x"), "'4x' is not a number of tokens"),
        (("--lengths", "0"), "'0' is not a number of tokens"),
        (("--lengths", "20"), "too short for passkey"),
        (("--types", "inf-lm"), "did you mean"),
        (("--tasks", "paskey"), "did you mean 'passkey'"),
        (
            ("--lengths", "300", "--json", "/nowhere/rows.json"),
            "--json /nowhere/rows.json: cannot be",
        ),
        (("--config-dir", "/nowhere"), "/nowhere"),
        (("model.topk=8",), "topk has no effect with type 'stream-lm'"),
    ],
    ids=["unit", "zero", "short", "type", "task", "folder", "configs", "setting"],
)
def test_refusals(invoke: Invoke, words: tuple[str, ...], message: str) -> None:
    done = invoke("demo", "--samples", 1, "--types", "stream-lm", *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
