"""`pred.py` with an engine that has no model: rows, resuming after a kill, ranks, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_engine
import pytest

from benchmark import merge, pred
from benchmark.record import RowFile, RunFolderError

SCRIPT = Path(fake_engine.__file__)
NEEDLES = "passkey@1k,lines@1k"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model:\n  type: inf-llm\n  path: nowhere\n  n_local: 512\n")
    return path


@pytest.fixture
def data(tmp_path):
    """InfiniteBench's form: six questions over two books, and one document that fails."""
    folder = tmp_path / "data" / "infinitebench"
    folder.mkdir(parents=True)
    books = [f"Book {b}. " + "Nothing happens. " * 50 for b in range(2)]
    books += ["POISON. The end."]
    rows = [
        {"id": i, "context": books[b], "input": f"Question {i}?", "answer": ["x"], "options": []}
        for i, b in enumerate((0, 1, 0, 1, 0, 2, 1))
    ]
    (folder / "longbook_qa_eng.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder.parent


def arguments(config, folder, datasets=NEEDLES, *more):
    return [
        "--config_path", str(config), "--output_dir_path", str(folder), "--datasets", datasets,
        "--samples", "8", *more,
    ]  # fmt: skip


def predict(config, folder, *more, datasets=NEEDLES):
    return pred.main(arguments(config, folder, datasets, *more), engine=fake_engine.ADDRESS)


def rows(folder, task="passkey@1k"):
    lines = (folder / f"{task}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def timeless(row):
    return {key: value for key, value in row.items() if "seconds" not in key}


def same(first, other, task):
    return [timeless(r) for r in rows(first, task)] == [timeless(r) for r in rows(other, task)]


def test_rows_carry_everything(config, tmp_path):
    assert predict(config, tmp_path / "o") == 0
    made = rows(tmp_path / "o")
    assert [row["id"] for row in made] == [str(i) for i in range(8)]
    assert all(row["pred"].strip() == row["answers"][0] for row in made)
    row = made[0]
    assert row["dataset"] == "passkey@1k"
    assert row["token_length"] <= 1024 - 12
    assert row["memory"] == {"tokens": row["token_length"], "blocks": {"host": 3}}
    assert {"all_classes", "length", "seconds", "read_seconds"} <= row.keys()


def test_record_says_what_was_used(config, tmp_path):
    predict(config, tmp_path / "o", "--truncation", "middle", "model.topk=9")
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    assert record["config"]["model"]["topk"] == 9
    assert record["rules"]["truncation"] == "middle"
    assert record["tasks"]["passkey@1k"]["chat_template"] is False


def test_one_read_serves_all_questions_of_a_document(config, data, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    more = ("--data_dir", str(data), "--prompts", "plain")
    assert predict(config, tmp_path / "o", *more, datasets="longbook_qa_eng") == 0
    reads = [line for line in (tmp_path / "log").read_text().splitlines() if "read" in line]
    assert len(reads) == 3
    assert [row["index"] for row in rows(tmp_path / "o", "longbook_qa_eng")] == list(range(7))


def test_a_failing_sample_is_recorded_and_can_be_retried(config, data, tmp_path, monkeypatch):
    more = ("--data_dir", str(data), "--prompts", "plain")
    folder = tmp_path / "o"
    assert predict(config, folder, *more, datasets="longbook_qa_eng") == 0
    failed = [row for row in rows(folder, "longbook_qa_eng") if "error" in row]
    assert [(row["id"], row["error"], row["pred"]) for row in failed] == [
        ("5", "MemoryError: no room left", "")
    ]
    before = (folder / "longbook_qa_eng.jsonl").read_bytes()
    predict(config, folder, *more, datasets="longbook_qa_eng")
    assert (folder / "longbook_qa_eng.jsonl").read_bytes() == before
    monkeypatch.setattr(fake_engine.FakeReader, "ask", lambda *_: "fine")
    predict(config, folder, *more, "--retry_failed", datasets="longbook_qa_eng")
    retried = rows(folder, "longbook_qa_eng")
    assert [row["pred"] == "fine" for row in retried] == [i == 5 for i in range(7)]


def start_slow(config, folder):
    environment = os.environ | {"FAKE_SECONDS": "0.03"}
    more = ("--limit", "8")
    command = [sys.executable, str(SCRIPT), *arguments(config, folder, NEEDLES, *more)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def wait_for_rows(folder, task, n):
    path = folder / f"{task}.jsonl"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.exists() and path.read_bytes().count(b"\n") >= n:
            return
        time.sleep(0.005)
    pytest.fail(f"{path} never held {n} rows")


def test_killed_twice_ends_like_an_undisturbed_run(config, tmp_path):
    predict(config, tmp_path / "whole", "--limit", "8")
    folder = tmp_path / "killed"
    for task, n in (("passkey@1k", 3), ("lines@1k", 2)):
        process = start_slow(config, folder)
        wait_for_rows(folder, task, n)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(rows(folder, task)) < 8
    # What a kill in the middle of a write leaves behind:
    with (folder / "lines@1k.jsonl").open("ab") as file:
        file.write(b'{"id": "5", "index": 5, "pred": "ha')
    assert predict(config, folder, "--limit", "8") == 0
    for task in NEEDLES.split(","):
        assert same(folder, tmp_path / "whole", task)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_ranks_equal_one_process(config, data, tmp_path, order):
    datasets = NEEDLES + ",longbook_qa_eng"
    more = ("--data_dir", str(data), "--prompts", "plain")
    predict(config, tmp_path / "one", *more, datasets=datasets)
    for rank in order:
        ranked = (*more, "--rank", str(rank), "--world_size", "2")
        assert predict(config, tmp_path / "two", *ranked, datasets=datasets) == 0
    for task in datasets.split(","):
        assert same(tmp_path / "one", tmp_path / "two", task)
    assert not list((tmp_path / "two").glob("*-of-*"))


def test_merge_refuses_gaps_and_says_which(config, tmp_path, capsys):
    predict(config, tmp_path / "o", "--rank", "1", "--world_size", "2")
    assert len(list((tmp_path / "o").glob("*.jsonl.1-of-2"))) == 2
    assert merge.main(["--output_dir_path", str(tmp_path / "o"), "--datasets", NEEDLES]) == 2
    assert "lacks 4 samples (0, 2, 4, 6)" in capsys.readouterr().err


def test_a_larger_limit_goes_on(config, tmp_path):
    predict(config, tmp_path / "o", "--limit", "2")
    assert len(rows(tmp_path / "o")) == 2
    predict(config, tmp_path / "o")
    assert len(rows(tmp_path / "o")) == 8


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("model.topk=5",), "model.topk was 64 and is now 5"),
        (("--seed", "1"), "generation.seed was 0 and is now 1"),
        (("--truncation", "middle"), "rules.truncation was 'none' and is now 'middle'"),
    ],
)
def test_changed_settings_are_refused_in_the_same_folder(config, tmp_path, capsys, more, says):
    predict(config, tmp_path / "o")
    before = (tmp_path / "o" / "passkey@1k.jsonl").read_bytes()
    assert predict(config, tmp_path / "o", *more) == 2
    assert says in capsys.readouterr().err
    assert (tmp_path / "o" / "passkey@1k.jsonl").read_bytes() == before


def test_changed_data_is_refused(config, data, tmp_path, capsys):
    more = ("--data_dir", str(data), "--prompts", "plain")
    predict(config, tmp_path / "o", *more, datasets="longbook_qa_eng")
    path = data / "infinitebench" / "longbook_qa_eng.jsonl"
    path.write_text(path.read_text().replace("Question 0?", "Question zero?"))
    assert predict(config, tmp_path / "o", *more, datasets="longbook_qa_eng") == 2
    assert "longbook_qa_eng.samples_sha256 was" in capsys.readouterr().err


def test_rows_of_unknown_origin_are_not_added_to(config, tmp_path, capsys):
    (tmp_path / "passkey@1k.jsonl").write_text("{}\n")
    assert predict(config, tmp_path) == 2
    assert "no run.json" in capsys.readouterr().err


def test_two_writers_of_one_file_are_refused(tmp_path):
    with (
        RowFile(tmp_path / "a.jsonl"),
        pytest.raises(RunFolderError, match="being written by another"),
    ):
        RowFile(tmp_path / "a.jsonl")


def test_a_file_that_is_being_written_is_left_alone(config, tmp_path, capsys):
    """A second, smaller run finds all its samples done; the first one's rows are not its own."""
    folder = tmp_path / "o"
    assert predict(config, folder, "--limit", "5", datasets="passkey@1k") == 0
    with RowFile(folder / "passkey@1k.jsonl") as file:
        assert predict(config, folder, "--limit", "3", datasets="passkey@1k") == 0
        assert merge.main(["--output_dir_path", str(folder), "--datasets", "passkey@1k"]) == 2
        assert "is being written" in capsys.readouterr().err
        file.append({**rows(folder)[0], "id": "7", "index": 7})
    assert [row["id"] for row in rows(folder)] == ["0", "1", "2", "3", "4", "7"]


def test_samples_with_equal_ids_are_all_kept(config, data, tmp_path):
    file = data / "infinitebench" / "longbook_qa_eng.jsonl"
    lines = [json.loads(line) | {"id": 0} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    more = ("--data_dir", str(data), "--prompts", "plain")
    assert predict(config, tmp_path / "o", *more, datasets="longbook_qa_eng") == 0
    ids = [row["id"] for row in rows(tmp_path / "o", "longbook_qa_eng")]
    assert ids == ["0", *(f"0, row {n}" for n in range(2, 8))]


def test_half_a_character_is_kept_as_it_is(config, data, tmp_path):
    file = data / "infinitebench" / "longbook_qa_eng.jsonl"
    lines = [json.loads(line) | {"answer": ["\ud800"]} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    more = ("--data_dir", str(data), "--prompts", "plain")
    for _ in range(2):
        assert predict(config, tmp_path / "o", *more, datasets="longbook_qa_eng") == 0
    assert {row["answers"][0] for row in rows(tmp_path / "o", "longbook_qa_eng")} == {"\ud800"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{}", "sample 1 lacks 'answer'; it has: nothing"),
        ('{"answer": ["x"], "options": 5}', "sample 1 is malformed"),
        ("[" * 100_000, "line 1 is not JSON: it is nested too deeply"),
        ('"text"', "line 1 is a JSON str: one object is expected"),
        ("\udcff", "line 1 is not JSON"),
    ],
)
def test_malformed_data(config, data, tmp_path, capsys, line, says):
    file = data / "infinitebench" / "longbook_qa_eng.jsonl"
    file.write_bytes(line.encode("utf-8", "surrogateescape") + b"\n")
    more = ("--data_dir", str(data), "--prompts", "plain")
    assert predict(config, tmp_path / "o", *more, datasets="longbook_qa_eng") == 2
    error = capsys.readouterr().err
    assert says in error
    assert "longbook_qa_eng.jsonl" in error


@pytest.mark.parametrize(
    ("folder", "says"), [("taken", "taken: "), ("taken/in", "taken"), ("a\0b", "is no path")]
)
def test_output_folders_that_cannot_be(config, tmp_path, capsys, folder, says):
    (tmp_path / "taken").write_text("")
    given = folder if "\0" in folder else tmp_path / folder
    assert predict(config, given) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "datasets", "says"),
    [
        ((), "passky@1k", "did you mean 'passkey'"),
        ((), "", "no datasets"),
        ((), "lines", "needs a length, such as lines@8k"),
        ((), "trec@8k", "not generated"),
        ((), "passkey@1x", "is not a number of tokens"),
        ((), "passkey@", "lacks a length behind the @: write passkey@8k"),
        ((), "passkey@1", "of its tokens are for the answer"),
        ((), "passkey@99999999999999999999m", "at most 1024M"),
        (("--haystack", sys.executable), "passkey@1k", "is not text in UTF-8"),
        (("--world_size", "0"), "passkey@1k", "world_size = 0"),
        ((), "passkey@1k,passkey@1k", "more than once"),
        ((), "trec", "bash scripts/download.sh longbench"),
        (("--prompts", "plian"), "passkey@1k", "did you mean 'plain'"),
        (("--rank", "2", "--world_size", "2"), "passkey@1k", "ranks count from 0"),
        (("--limit", "0"), "passkey@1k", "at least 1"),
        (("--haystack", "nofile"), "passkey@1k", "is not a file"),
        (("--chat_template", "always"), "passkey@1k", "conv_type"),
        (("model.topkk=1",), "passkey@1k", "topkk"),
    ],
)
def test_bad_input_gives_one_message_and_exit_code_2(
    config, tmp_path, capsys, more, datasets, says
):
    data = ("--data_dir", str(tmp_path / "no_data"))
    assert predict(config, tmp_path / "o", *data, *more, datasets=datasets) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
