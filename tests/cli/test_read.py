"""`inf-llm read`, and `inf-llm run --memory`: a text is read once."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from inf_llm.generation import Session
from inf_llm.saved.folder import claimed
from inf_llm.saved.manifest import read_manifest
from tests.checkpoints import SETTINGS
from tests.cli.conftest import Invoke


@pytest.fixture
def saved(invoke: Invoke, config: Path, book: Path, tmp_path: Path) -> Path:
    """A folder with the memory of the book."""
    folder = tmp_path / "memory"
    done = invoke("read", "-c", config, "-f", book, "--save", folder)
    assert done.exit_code == 0, done.stderr
    return folder


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_memory_answers_as_the_text_itself(
    invoke: Invoke, configs: dict[str, Path], book: Path, tmp_path: Path, kind: str
) -> None:
    words = ("-c", configs[kind], "-f", book)
    assert invoke("read", *words, "--save", tmp_path / "m").exit_code == 0
    fresh = invoke("run", *words, "-p", "Why?", "-n", 8)
    done = invoke("run", "--memory", tmp_path / "m", "-p", "Why?", "-n", 8)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == fresh.stdout
    assert "read 7" not in done.stderr


def test_reading_on_answers_as_both_texts(
    invoke: Invoke, config: Path, book: Path, saved: Path, tmp_path: Path
) -> None:
    more, both = tmp_path / "more.txt", tmp_path / "both.txt"
    more.write_text("And then the dog woke up. " * 9)
    both.write_text(book.read_text() + "\n\n" + more.read_text())
    done = invoke("run", "--memory", saved, "-f", more, "-p", "Why?", "-n", 8)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == invoke("run", "-c", config, "-f", both, "-p", "Why?", "-n", 8).stdout


def test_an_interrupted_reading_goes_on(
    invoke: Invoke, config: Path, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["inf_llm.cli.reading"], "SECONDS", 0.0)
    words = ("read", "-c", config, "-f", book, "--save", tmp_path / "m", "chunk_size=64")
    real, calls = Session.save, []

    def save(self: Session, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        calls.append(len(self.ids))
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Session, "save", save)
    assert invoke(*words).exit_code == 130
    assert read_manifest(tmp_path / "m").tokens == 192
    done = invoke(*words)
    assert done.exit_code == 0, done.stderr
    assert "192 of 7" in done.stderr
    assert calls[3] == 256
    fresh = invoke("run", "-c", config, "-f", book, "-p", "Why?", "-n", 8)
    assert invoke("run", "--memory", tmp_path / "m", "-p", "Why?", "-n", 8).stdout == fresh.stdout


def test_a_folder_that_another_process_reads_into_is_refused_before_reading(
    invoke: Invoke, config: Path, book: Path, saved: Path, tmp_path: Path
) -> None:
    longer = tmp_path / "longer.txt"
    longer.write_text(book.read_text() + "And on. " * 50)
    done = threading.Event()
    has_it = threading.Event()

    def hold() -> None:
        with claimed(saved):
            has_it.set()
            done.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    has_it.wait(60)
    refused = invoke("read", "-c", config, "-f", longer, "--save", saved)
    done.set()
    other.join()
    assert refused.exit_code == 2
    assert "is being written by another process" in refused.stderr
    assert "read in" not in refused.stderr


def test_a_text_that_is_read_already_changes_nothing(
    invoke: Invoke, config: Path, book: Path, saved: Path
) -> None:
    before = read_manifest(saved)
    done = invoke("read", "-c", config, "-f", book, "--save", saved, "max_len=100000")
    assert done.exit_code == 0, done.stderr
    assert read_manifest(saved) == before


def test_another_text_is_refused(invoke: Invoke, config: Path, saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("The quick brown fox jumped. " * 40)
    done = invoke("read", "-c", config, "-f", other, "--save", saved)
    assert done.exit_code == 2
    assert "holds another text: it differs from token " in done.stderr


def test_what_is_wrong_is_said_before_the_model_is_loaded(
    invoke: Invoke, config: Path, book: Path, saved: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all my work")
    refused = {
        "holds no memory, but other files ('thesis.txt')": tmp_path / "mine",
        "is a file: give a folder": book,
    }
    for message, folder in refused.items():
        done = invoke("read", "-c", config, "-f", book, "--save", folder)
        assert (done.exit_code, message in done.stderr) == (2, True), done.stderr
        assert "loading" not in done.stderr
    done = invoke("run", "--memory", saved, "-p", "Why?", "model.topk=2")
    assert done.exit_code == 2
    assert "attention.topk is " in done.stderr
    assert "loading" not in done.stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all my work"


def test_questions_are_answered_once_each(
    invoke: Invoke, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions, answers = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    rows = [json.dumps({"question": f"Why {n}?", "id": f"q{n}"}) for n in range(7)]
    questions.write_text("\n".join(rows))
    words = ("run", "--memory", saved, "--questions", questions, "--answers", answers, "-n", 3)
    real, calls = Session.ask, []

    def ask(self: Session, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) in (3, 6):
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Session, "ask", ask)
    for code in (130, 130, 0):
        assert invoke(*words).exit_code == code
        with answers.open("a") as file:  # a line that was broken off
            file.write('{"index": 6, "que' if code else "")
    written = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [row["index"] for row in written] == list(range(7))
    assert [row["id"] for row in written] == [f"q{n}" for n in range(7)]
    assert len(calls) == 9
    alone = invoke("run", "--memory", saved, "-p", "Why 5?", "-n", 3)
    assert written[5]["answer"] == alone.stdout.strip()


def test_questions_about_a_text_that_is_read_now(
    invoke: Invoke, config: Path, book: Path, tmp_path: Path
) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text('"Why?"\n"Who?"\n')
    done = invoke("run", "-c", config, "-f", book, "--questions", questions, "-n", 4)
    assert done.exit_code == 0, done.stderr
    rows = [json.loads(x) for x in (tmp_path / "q.answers.jsonl").read_text().splitlines()]
    fresh = invoke("run", "-c", config, "-f", book, "-p", "Who?", "-n", 4)
    assert rows[1]["answer"] == fresh.stdout.strip()


# what is wrong: words after `run`, what the message says
REFUSED: dict[str, tuple[list[str], str]] = {
    "nothing asked": ([], "nothing to ask: give --prompt, or --questions"),
    "both": (["-p", "Why?", "--questions", "q.jsonl"], "--prompt does not go with --questions"),
    "answers alone": (["-p", "Why?", "--answers", "a.jsonl"], "--answers goes with --questions"),
    "no such questions": (["--questions", "none.jsonl"], "none.jsonl: cannot be read"),
    "no memory": (["-p", "Why?", "--memory", "nowhere"], "nowhere holds no memory"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(invoke: Invoke, config: Path, book: Path, name: str) -> None:
    words, message = REFUSED[name]
    done = invoke("run", "-c", config, "-f", book, *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_moved_model_is_read_with_the_settings_of_the_memory(
    invoke: Invoke, saved: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "moved").symlink_to(checkpoint)
    words = ("run", "--memory", saved, "-p", "Why?", "-n", 4)
    moved = invoke(*words, "--model", tmp_path / "moved")
    assert moved.exit_code == 0, moved.stderr
    assert moved.stdout == invoke(*words).stdout
    assert "model.path" in invoke(*words, "--model", "./nowhere").stderr


def test_max_len_is_seen_before_anything_is_read(
    invoke: Invoke, config: Path, book: Path, saved: Path, tmp_path: Path
) -> None:
    done = invoke("read", "-c", config, "-f", book, "--save", tmp_path / "m", "max_len=100")
    assert (done.exit_code, "max_len leaves room for 100" in done.stderr) == (2, True)
    done = invoke("run", "--memory", saved, "-f", book, "-p", "Why?", "max_len=800")
    assert (done.exit_code, "max_len leaves room for 800" in done.stderr) == (2, True)
    assert "read 7" not in done.stderr
