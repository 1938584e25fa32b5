"""The terminal chat as a person meets it: in this process, through a terminal, and in a pipe."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from inf_llm.chat.session import ChatSession
from inf_llm.cli.terminal import COMMANDS, Terminal
from tests.chat.pseudo import Screen
from tests.documents import pdf, with_documents

BOOK = "The quick brown fox jumps over the lazy dog. " * 60
END = " __END_OF_A_MESSAGE_47582648__\n"


class Script:
    """Says its lines; an exception among them is raised."""

    def __init__(self, lines: Iterable[Any]) -> None:
        self._lines = iter(lines)

    def prompt_for_input(self, role: str) -> str:
        line = next(self._lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return str(line)

    def prompt_for_output(self, role: str) -> None:
        print(f"{role}: ", end="")

    def stream_output(self, output_stream: Iterable[dict[str, str]]) -> str:
        text = [output["text"] for output in output_stream][-1]
        print(text)
        return text

    def print_output(self, text: str) -> None:
        print(text)


Run = Callable[..., tuple[ChatSession, str, str]]


@pytest.fixture
def run(
    memory_model: Any,
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Say lines to the chat; gives the conversation, and what stood on output and error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text(BOOK)

    def chatted(*lines: Any, **options: Any) -> tuple[ChatSession, str, str]:
        chat = ChatSession(memory_model, tokenizer, chunk_size=512)
        Terminal(chat, Script(lines), {"max_new_tokens": 4}, **options).run()
        return (chat, *capsys.readouterr())

    return chatted


def test_questions_and_commands(run: Run) -> None:
    chat, out, err = run("!!read book.txt", "Who?", "", "!!memory", "!!regen", "Why?", "!!exit")
    assert len(chat.turns) == 4
    assert out.count("assistant: ".upper()) == 3
    assert "read book.txt: 2,700 characters, 2,70" in out
    assert re.search(r"tokens +2,7\d\d; questions go on from 2,\d{3}", out)
    assert re.search(r"recalls +\d+ hits, \d+ misses: \d+% of recalls were at hand", out)
    assert out.endswith("exit...\n")
    assert "error" not in err


@with_documents
def test_a_document_is_read_and_what_it_was_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "book.pdf").write_bytes(pdf(["first page", "", "third page"]))
    chat, out, err = run("!!read book.pdf", "!!read scan.pdf", "Who?")
    assert chat.turns[0].documents[0].text == "first page\n\nthird page"
    assert "read book.pdf: a PDF of 3 pages, 1 of them without text, 22 characters, " in out
    assert err.count("error: scan.pdf: ") == 1


def test_remove_reset_help(run: Run) -> None:
    chat, out, _ = run("One?", "Two?", "!!remove", "!!help")
    assert [turn.content for turn in chat.turns[::2]] == ["One?"]
    assert "USER: One?" in out
    assert all(name in out for name in COMMANDS)
    assert run("One?", "!!reset")[0].turns == ()


def test_save_and_load(run: Run, tmp_path: Path) -> None:
    chat, out, _ = run("!!read book.txt", "Who?", "!!save", "!!save here")
    assert "saved to inf-llm-chat.json" in out
    assert json.loads((tmp_path / "here.json").read_text())["turns"][0]["content"] == "Who?"
    for words in ("", " here", " here.json"):
        loaded, out, _ = run(f"!!load{words}")
        assert loaded.transcript == chat.transcript
        assert "[book.txt: 2,700 characters]\nUSER: Who?" in out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("!!raed book.txt", "!!raed is not a command; did you mean '!!read'? !!help"),
        ("!!read", "say which file"),
        ("!!read no.txt", "no.txt: cannot be read: No such file"),
        ("!!read .", ".: is not a file"),
        ("!!read -", "-: is not a file"),
        ("!!read /dev/zero", "/dev/zero: is not a file"),
        ("!!read binary", "binary: is not text in UTF-8 (byte 0)"),
        ("!!read empty", "empty: is empty"),
        ("!!load no", "no.json: cannot be read: No such file"),
        ("!!load book.txt", "book.txt: is not a saved conversation: not JSON"),
        ("!!load other.json", "other.json: is not a saved conversation: it needs"),
        ("!!save no/such/place", "cannot be written: No such file"),
        ("!!regen", "there is no answer to regenerate"),
        ("!!remove", "there is nothing to remove"),
        ("half \udcff", "the question is not text in UTF-8"),
    ],
)
def test_one_message_and_the_chat_goes_on(run: Run, tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "binary").write_bytes(b"\x89PNG\0")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "other.json").write_text("{}")
    chat, out, err = run(line, "Who?")
    assert err.startswith("error: ")
    assert says in err
    assert len(err.splitlines()) == 1
    assert len(chat.turns) == 2
    assert out.endswith("exit...\n")


def test_interrupts_at_the_prompt(run: Run) -> None:
    wrong = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    chat, out, err = run(KeyboardInterrupt(), wrong, "Who?")
    assert "!!exit or Ctrl-D leaves" in out
    assert "not text in UTF-8 (invalid start byte)" in err
    assert len(chat.turns) == 2


def test_an_unexpected_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **how: Any) -> None:
        raise ZeroDivisionError("something\nstrange")

    monkeypatch.setattr(ChatSession, "add_document", broken)
    chat, _, err = run("!!read book.txt", "Who?")
    assert err == "unexpected ZeroDivisionError: something\n"
    assert len(chat.turns) == 2
    assert "Traceback" in run("!!read book.txt", debug=True)[2]


def test_debug_says_what_it_took(run: Run) -> None:
    _, _, err = run("!!read book.txt", "Who?", "Why?", debug=True)
    lines = [line for line in err.splitlines() if "in memory" in line]
    assert lines[0].startswith("fresh: 0 of 2,70")
    assert re.match(
        r"continued: 2,\d{3} of 2,\d{3} tokens were in memory, \d+ were fed.*; first token after "
        r"\d\.\d s; \d+ more in .* s",
        lines[2],
    )


def test_no_history_keeps_the_documents(run: Run) -> None:
    chat, _, _ = run("!!read book.txt", "Who?", "Why?", history=False)
    assert chat.turns == ()
    assert [document.name for document in chat.documents] == ["book.txt"]


OPTIONS = ("--temperature", 0, "--max-new-tokens")


def test_through_a_terminal(config: Path, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(BOOK)
    (tmp_path / "long.txt").write_text(BOOK * 300)
    published = ("-m", "inf_llm.chat", "--inf-llm-config-path", config)
    with Screen(*published, *OPTIONS, 100_000, "--debug", cwd=tmp_path) as screen:
        screen.see("USER: ")
        screen.type("What is there to know?")  # this model answers with 4,373 tokens
        screen.see("ASSISTANT: ")
        screen.type("\x03")
        screen.see("stopped; what was said stays.")
        screen.see("USER: ")
        screen.type("!!memory")
        screen.see("all kept")
        screen.see("USER: ")
        screen.type("\x1b[A")  # the line before, once more
        screen.see("all kept")
        screen.see("USER: ")
        screen.type("!!remove")
        screen.see("removing last message")
        screen.see("USER: ")
        screen.type("!!read long.txt")
        screen.see("tokens/s")
        screen.type("\x03")
        assert re.search(r"stopped after [\d,]+ tokens", screen.see("tokens.\n", 30))
        screen.see("USER: ")
        screen.type("!!read bok.txt\x1b[D\x1b[D\x1b[D\x1b[D\x1b[Do")  # a letter is put in
        screen.see("Ask about it.")
        screen.see("USER: ")
        screen.type("!!save kept")
        screen.see("saved to kept.json")
        screen.see("USER: ")
        screen.interrupt("!!exit or Ctrl-D leaves")
        screen.see("USER: ")
        screen.type("!!memory")
        assert re.search(r"go on from .*2,6\d\d", screen.see("all kept"))
        screen.see("USER: ")
        screen.type("!!load kept")
        screen.see("[book.txt: 2,700 characters]")
        screen.see("USER: ")
        screen.type("\x04")
        screen.see("exit...")
        assert screen.ends() == 0
        assert "Traceback" not in screen.shown
    saved = json.loads((tmp_path / "kept.json").read_text())
    assert saved["turns"] == []
    assert [document["name"] for document in saved["documents"]] == ["book.txt"]


def test_rich_style_through_a_terminal(config: Path, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastchat.serve.cli", reason="needs inf-llm[chat]")
    code = "from inf_llm.cli import main; main()"
    words = ("-c", code, "chat", "--config", config, "--model", checkpoint, "--style", "rich")
    with Screen(*words, *OPTIONS, 4, cwd=tmp_path) as screen:
        screen.see("USER:")
        screen.type("Who?\r")
        screen.see("ASSISTANT:")
        screen.see("USER:")
        screen.type("!!exit\r")
        screen.see("exit...")
        assert screen.ends() == 0


def test_programmatic_style_in_a_pipe(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastchat.serve.cli", reason="needs inf-llm[chat]")
    (tmp_path / "book.txt").write_text(BOOK)
    words = ["-m", "inf_llm.chat", "--config", config, "--style", "programmatic", *OPTIONS, 4]
    done = subprocess.run(
        [sys.executable, *map(str, words), "--read", "book.txt", "--conv-template", "vicuna"],
        input=f"Who\nis it?{END}!!memory{END}",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "[!OP:USER]: Who\nis it?\n[!OP:ASSISTANT]: " in done.stdout
    assert "read book.txt: 2,700 characters" in done.stdout
    assert "questions go on from 2," in done.stdout
    assert "template 'vicuna'" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--style", "ritch"], "style = 'ritch' is not known; did you mean 'rich'"),
        (["--mouse"], "mouse has no effect with style = 'simple'"),
        (["--conv-template", "vicunna"], "did you mean 'vicuna'"),
        (["--read", "no.txt"], "no.txt: cannot be read"),
        (["--temperature", "-1"], "--temperature"),
        (["model.topk=x"], "model.topk"),
    ],
)
def test_refused_before_it_begins(config: Path, words: list[str], says: str) -> None:
    from typer.testing import CliRunner

    from inf_llm.cli import app

    done = CliRunner().invoke(app, ["chat", "--config", str(config), *words])
    assert done.exit_code == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
