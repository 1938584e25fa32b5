"""`inf-llm fidelity`: its table, its folder, its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke

SMALL = ("fidelity", "--length", "500", "--contexts", 1, "--questions", 1, "--tasks", "number")


def test_a_table_and_a_folder_that_goes_on(invoke: Invoke, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (*SMALL, "-c", config, "--out", out)
    done = invoke(*words, "--against", "topk=1", "--oracle", "model.block_size=8")
    assert done.exit_code == 0, done.stderr
    assert "gap closed" in done.stdout
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    name = "inf-llm block_size=8"
    assert list(dict.fromkeys(row["rule"] for row in rows)) == [
        "full",
        "window",
        name,
        "topk=1",
        "oracle",
    ]
    rules = json.loads((out / "run.json").read_text())["rules"]
    assert [rules[each]["block_size"] for each in (name, "topk=1", "oracle")] == [8, 8, 8]
    assert [rules[each]["topk"] for each in (name, "topk=1", "oracle")] == [3, 1, 3]
    assert {row["definition"] for row in rows} == {1}

    again = invoke(*words, "--contexts", 2, "model.block_size=8")
    assert again.exit_code == 0, again.stderr
    assert f"{len(rows)} rows are there already" in again.stderr
    more = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert more[: len(rows)] == rows
    assert {row["context"] for row in more[len(rows) :]} == {1}


def test_full_attention_is_left_out_past_the_trained_length(invoke: Invoke, config: Path) -> None:
    words = (*SMALL[:1], "--length", "800", *SMALL[3:])
    done = invoke(*words, "-c", config)
    assert done.exit_code == 0, done.stderr
    assert "full attention is left out: the model was trained for 512 tokens" in done.stderr
    assert "full" not in done.stdout.split()
    dense = invoke(*words, "-c", config, "--read", "dense")
    assert dense.exit_code == 2
    assert "use --read own, or a shorter length" in dense.stderr


def test_questions_of_ones_own(invoke: Invoke, config: Path, tmp_path: Path, book: Path) -> None:
    qa_file = tmp_path / "asked.jsonl"
    qa_file.write_text('{"question": "Who jumps?", "answer": "brown fox"}\n')
    words = ("fidelity", "-c", config, "--length", "500", "--contexts", 1, "--tasks", "qa")
    done = invoke(*words, "--text", book, "--qa-file", qa_file)
    assert done.exit_code == 0, done.stderr
    qa_file.write_text('{"question": "Who jumps?"}\n')
    done = invoke(*words, "--text", book, "--qa-file", qa_file)
    assert done.exit_code == 2
    assert "line 1: one JSON object is needed" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tasks", "numbr"), "did you mean 'number'"),
        (("--length", "4x"), "'4x' is not a number of tokens"),
        (("--length", "200"), "length 200 is too short"),
        (("--read", "sparse"), "read = 'sparse' is not known"),
        (("--against", "topk=0"), "topk = 0"),
        (("--against", "topkk=4"), "topkk"),
        (("--against", "demo llama-3"), "one configuration at most"),
        (("--against", "type=origin"), "is full attention, which every rule is compared with"),
        (("--against", "topk=2", "--against", "topk=2"), "two rules are called 'topk=2'"),
        (("--text", "/nowhere.txt"), "/nowhere.txt"),
        (("--out", "/dev/null/x"), "--out /dev/null/x: cannot be used"),
    ],
    ids=["task", "unit", "short", "read", "value", "key", "two", "origin", "twice", "text", "out"],
)
def test_refusals(invoke: Invoke, config: Path, words: tuple[str, ...], message: str) -> None:
    done = invoke(*SMALL, "-c", config, *words)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert "Traceback" not in done.stderr
