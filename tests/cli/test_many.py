"""`inf-llm read` and `run --questions` of several texts: in this process, and on Ray."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inf_llm.cli import reading
from inf_llm.generation import Session
from inf_llm.saved.folder import verify
from inf_llm.saved.manifest import read_manifest
from tests.cli.conftest import Invoke

RAY = importlib.util.find_spec("ray") is not None
with_ray = pytest.mark.skipif(not RAY, reason="ray is not installed: pip install 'inf-llm[ray]'")
ENGINES = ["local", pytest.param("ray", marks=with_ray)]
NAMES = "one", "two", "three"


@pytest.fixture
def books(tmp_path: Path) -> list[Path]:
    """Texts of different lengths, all longer than the window."""
    files = [tmp_path / f"{name}.txt" for name in NAMES]
    for number, file in enumerate(files):
        file.write_text(f"This is the book about {file.stem}. " * (20 + 7 * number))
    return files


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Two questions."""
    file = tmp_path / "questions.jsonl"
    file.write_text('"Why?"\n{"question": "Who?", "id": 7}\n')
    return file


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Words for a command; on Ray there are two actors on this machine."""
    if request.param == "local":
        yield []
        return
    import ray

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    ray.init("local", num_cpus=4, log_to_driver=False, include_dashboard=False)
    yield ["--engine", "ray"]
    ray.shutdown()


def _answers(file: Path) -> dict[int, str]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({row["index"] for row in rows}) == len(rows)
    return {row["index"]: row["answer"] for row in rows}


def test_memories_and_answers_are_those_of_one_text_at_a_time(
    invoke: Invoke,
    config: Path,
    books: list[Path],
    questions: Path,
    tmp_path: Path,
    engine: list[str],
) -> None:
    memories, answers = tmp_path / "memories", tmp_path / "answers"
    done = invoke("read", *books, "--out", memories, "-c", config, *engine, "model.topk=3")
    assert done.exit_code == 0, done.stderr
    assert sorted(folder.name for folder in memories.iterdir()) == sorted(NAMES)
    for name in NAMES:
        assert verify(memories / name) == []
        assert f"{memories / name}: " in done.stderr
    options = ("--questions", questions, "-n", 4)
    done = invoke("run", *memories.iterdir(), *options, "--out", answers, *engine)
    assert done.exit_code == 0, done.stderr
    fresh = tmp_path / "fresh"
    done = invoke("run", *books, *options, "--out", fresh, "-c", config, *engine, "model.topk=3")
    assert done.exit_code == 0, done.stderr
    for book in books:
        alone = invoke("run", "-f", book, "-p", "Who?", "-n", 4, "-c", config, "model.topk=3")
        rows = _answers(answers / f"{book.stem}.jsonl")
        assert rows == _answers(fresh / f"{book.stem}.jsonl")
        assert rows[1] == alone.stdout.strip()
    assert len({_answers(answers / f"{name}.jsonl")[1] for name in NAMES}) > 1  # texts differ


def test_what_is_done_is_not_done_again(
    invoke: Invoke,
    config: Path,
    books: list[Path],
    questions: Path,
    tmp_path: Path,
    engine: list[str],
) -> None:
    memories, answers = tmp_path / "memories", tmp_path / "answers"
    read = ("read", "--out", memories, "-c", config, *engine)
    options = ("--questions", questions, "--out", answers, "-c", config, "-n", 3, *engine)
    assert invoke(*read, *books[:2]).exit_code == 0
    assert invoke("run", *books[:2], *options).exit_code == 0
    lines = (answers / "one.jsonl").read_text().splitlines(True)
    (answers / "one.jsonl").write_text(lines[1] + '{"index": 0, "que')  # one answer and a half
    before = {each: each.stat().st_mtime_ns for each in memories.rglob("*.json")}
    done = invoke(*read, *books)
    assert done.exit_code == 0, done.stderr
    assert f"2 of 3 texts are in {memories} already" in done.stderr
    assert {each: each.stat().st_mtime_ns for each in before} == before
    rows = [json.loads(line) for line in (answers / "two.jsonl").read_text().splitlines()]
    marked = "".join(json.dumps({**row, "answer": "mine"}) + "\n" for row in rows)
    (answers / "two.jsonl").write_text(marked)
    done = invoke("run", *books, *options)
    assert done.exit_code == 0, done.stderr
    assert (answers / "two.jsonl").read_text() == marked
    assert (answers / "one.jsonl").read_text() == lines[1] + lines[0]
    assert _answers(answers / "three.jsonl").keys() == {0, 1}
    again = invoke("run", *books, *options)
    assert again.exit_code == 0
    assert "loading" not in again.stderr


def test_a_text_is_read_once_for_all_questions_and_its_model_for_all_texts(
    invoke: Invoke,
    config: Path,
    books: list[Path],
    questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, read = Session.reading, []

    def counted(self: Session, text: Any = "", *rest: Any) -> Any:
        read.append(len(text))
        return real(self, text, *rest)

    monkeypatch.setattr(Session, "reading", counted)
    options = ("--questions", questions, "--out", tmp_path / "a", "-n", 2)
    done = invoke("run", *books, *options, "-c", config)
    assert done.exit_code == 0, done.stderr
    assert sum(count > 200 for count in read) == len(books)
    assert done.stderr.count("loading ") == 1


def test_a_reading_of_several_texts_that_was_interrupted_goes_on(
    invoke: Invoke,
    config: Path,
    books: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "SECONDS", 0.0)
    words = ("read", *books, "--out", tmp_path / "m", "-c", config, "chunk_size=128")
    real, saved = Session.save, []

    def save(self: Session, folder: Path, **kwargs: Any) -> None:
        real(self, folder, **kwargs)
        saved.append((folder.name, len(self.ids)))
        if len(saved) == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(Session, "save", save)
    assert invoke(*words).exit_code == 130
    name, tokens = saved[-1]
    assert name == "two"
    assert read_manifest(tmp_path / "m" / "two").tokens == tokens == 4 * 128
    done = invoke(*words)
    assert done.exit_code == 0, done.stderr
    assert re.search(r"512 of 7\d\d tokens are in .*two already", done.stderr)
    assert saved[10] == ("two", 5 * 128)


def test_a_text_that_fails_is_named_and_the_others_are_done(
    invoke: Invoke, config: Path, books: list[Path], tmp_path: Path, engine: list[str]
) -> None:
    words = ("read", *books, "--out", tmp_path / "m", "-c", config, *engine)
    held = tmp_path / "m" / "two"
    assert invoke("read", "-f", books[1], "-s", held, "-c", config).exit_code == 0
    longer = books[1].read_text() + "And more. " * 9
    books[1].write_text(longer)
    (segment,) = held.glob("blocks-*")
    segment.write_bytes(segment.read_bytes()[:-1])
    done = invoke(*words)
    assert done.exit_code == 2
    assert f"error: 1 of 3 texts failed, the last {books[1]}: " in done.stderr
    assert "Traceback" not in done.stderr
    for name in ("one", "three"):
        assert verify(tmp_path / "m" / name) == []


# what is wrong: words, what the message says; ONE and TWO are texts, and EMPTY has none
REFUSED: dict[str, tuple[list[str], str]] = {
    "no place": (["read", "ONE"], "is no setting (KEY=VALUE): give --out FOLDER"),
    "no place at all": (["read", "-f", "ONE"], "give --save FOLDER, or --out FOLDER"),
    "two places": (["read", "ONE", "--save", "s", "--out", "o"], "--save is for one text"),
    "a file too": (["read", "ONE", "-f", "TWO", "--out", "o"], "--file is for one text"),
    "no text": (["read", "--out", "o"], "--out o is for several texts: name them"),
    "standard input": (["read", "ONE", "-", "--out", "o"], "'-' is standard input"),
    "one name": (["read", "ONE", "sub/one.md", "--out", "o"], "would both go to o/one"),
    "an empty text": (["read", "ONE", "EMPTY", "--out", "o"], "empty.txt: is empty"),
    "no such text": (["read", "ONE", "none.txt", "--out", "o"], "none.txt: cannot be read"),
    "too long": (["read", "ONE", "TWO", "--out", "o", "max_len=600"], "room for 600"),
    "other files": (["read", "ONE", "TWO", "--out", "taken"], "holds no memory, but other files"),
    "a file for a folder": (["read", "ONE", "--out", "TWO"], "cannot be made"),
    "no cluster wanted": (["read", "ONE", "--out", "o", "--address", "a:1"], "is for --engine ray"),
    "no questions": (["run", "ONE", "--out", "o", "-p", "Why?"], "--out goes with --questions"),
    "a prompt on Ray": (["run", "-f", "ONE", "-p", "Why?", "--engine", "ray"], "--engine"),
    "answers too": (
        ["run", "ONE", "--out", "o", "--questions", "Q", "--answers", "a"],
        "--answers is for one text",
    ),
    "other answers": (["run", "ONE", "TWO", "--out", "old", "--questions", "Q"], "is no answer"),
    "a long question": (
        ["run", "ONE", "TWO", "--out", "o", "--questions", "Q", "-n", "100", "max_len=800"],
        "max_len leaves room for 700",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_before_anything_starts(
    invoke: Invoke,
    config: Path,
    books: list[Path],
    questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("sub", "taken/two", "old"):
        Path(folder).mkdir(parents=True)
    Path("sub/one.md").write_text("Another book. " * 30)
    Path("empty.txt").write_text(" \n")
    Path("taken/two/thesis.txt").write_text("all my work")
    Path("old/two.jsonl").write_text('{"index": 0, "question": "Where?", "answer": "Here."}\n')
    named = {"ONE": "one.txt", "TWO": "two.txt", "EMPTY": "empty.txt", "Q": "questions.jsonl"}
    words, message = REFUSED[name]
    if name == "a prompt on Ray":
        monkeypatch.setitem(sys.modules, "ray", type(sys)("ray"))
    done = invoke(*(named.get(word, word) for word in words), "-c", config)
    assert done.exit_code == 2
    assert message in done.stderr.replace("\n", " ")
    assert "loading" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path().glob("o/*.jsonl"))
    assert not list(Path().glob("o/*/*"))


def test_without_ray_it_is_named(
    invoke: Invoke, config: Path, books: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = invoke("read", *books, "--out", tmp_path / "m", "-c", config, "--engine", "ray")
    assert done.exit_code == 2
    assert "inf-llm[ray]" in done.stderr


def test_a_file_whose_name_looks_like_a_setting(
    invoke: Invoke, config: Path, books: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    books[0].rename("a=b.txt")
    done = invoke("read", "./a=b.txt", "--out", "m", "-c", config)
    assert done.exit_code == 0, done.stderr
    assert Path("m/a=b").is_dir()
    assert invoke("read", "a=b.txt", "--out", "n", "-c", config).exit_code == 2


@with_ray
@pytest.mark.slow
def test_a_killed_run_on_ray_goes_on(
    invoke: Invoke, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the first text is read: that is not read again, and the rest is."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    books = [tmp_path / f"book{number}.txt" for number in range(6)]
    for book in books:
        book.write_text(f"This is the book about {book.stem}. " * 500)
    out = tmp_path / "m"
    program = ["-c", "from inf_llm.cli import main; main()"]
    words = ["read", *books, "--out", out, "-c", config, "--engine", "ray"]
    command = [sys.executable, *program, *map(str, words)]
    first = subprocess.Popen(command)
    deadline = time.monotonic() + 300
    while not list(out.glob("*/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(5)  # actors see that their driver is gone
    whole = {each: each.stat().st_mtime_ns for each in out.glob("*/manifest.json")}
    assert 1 <= len(whole) < 6
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{len(whole)} of 6 texts are in {out} already" in done.stderr
    assert {each: each.stat().st_mtime_ns for each in whole} == whole
    assert [verify(out / book.stem) for book in books] == [[]] * 6
