"""`inf-llm run`: the answer on standard output, all else on standard error, one line a failure."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import inf_llm
from inf_llm.native import in_use
from tests.checkpoints import SETTINGS, write_config
from tests.cli.conftest import Invoke


@pytest.mark.parametrize("kind", SETTINGS)
def test_reads_and_answers(invoke: Invoke, configs: dict[str, Path], book: Path, kind: str) -> None:
    done = invoke("run", "--config", configs[kind], "--file", book, "-p", "Why?", "-n", 8)
    assert done.exit_code == 0
    assert done.stdout.strip()
    summary = done.stderr.strip().splitlines()[-1]
    assert re.match(r"read 726 tokens in .* s\b.*; answered 8 in .* s; memory ", summary)
    assert ("blocks" in summary) == (kind == "inf-llm")
    assert "tokens" not in done.stdout


def test_reads_standard_input(invoke: Invoke, config: Path, book: Path) -> None:
    words = ("run", "--config", config, "--prompt", "Why?", "--max-new-tokens", 4)
    piped = invoke(*words, input=book.read_bytes())
    assert piped.exit_code == 0
    assert piped.stdout == invoke(*words, "--file", book).stdout


def test_overrides_and_model(invoke: Invoke, configs: dict[str, Path], book: Path) -> None:
    words = ("run", "-c", configs["inf-llm"], "-f", book, "-p", "Why?", "-n", 4)
    origin = invoke(*words, "model.type=origin")
    assert origin.exit_code == 0
    assert "left out, as they do not belong to type 'origin': model.n_init" in origin.stderr
    assert invoke(*words, "--model", "no/such/model").exit_code == 2


@pytest.mark.parametrize("how", ["suffix", "middle"])
def test_truncation_is_said(invoke: Invoke, config: Path, book: Path, how: str) -> None:
    words = ("run", "-c", config, "-f", book, "-p", "Why?", "-n", 4)
    done = invoke(*words, "max_len=400", f"truncation={how}")
    assert done.exit_code == 0
    assert f"cut the prompt from 726 to 396 tokens ({how})" in done.stderr


# name: (content of the book, words after the usual ones, what the message must say)
REFUSED = {
    "empty book": (b"", [], "is empty"),
    "binary book": (b"\x89PNG\r\n\x1a\n\x00\x00", [], "is a PNG image, not text"),
    "no such book": (None, [], "book.txt: cannot be read: No such file"),
    "too long": (b"long " * 100, ["max_len=300"], "506 tokens, but max_len leaves room for 296"),
    "no room": (b"long", ["max_len=2"], "no room"),
    "no such model folder": (b"text", ["--model", "./none"], "model.path = './none'"),
    "no such hub name": (b"text", ["--model", "nobody/nothing"], "model.path = 'nobody/nothing'"),
    "wrong override": (b"text", ["model.tokp=3"], "did you mean 'model.topk'?"),
    "a question of space": (b"text", ["-p", "  "], "--prompt is empty: a text with more than"),
    "a book of space": (b" \n", [], "book.txt: is empty"),
    "impossible settings": (b"text", ["model.topk=9"], "max_cached_block"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(
    invoke: Invoke, config: Path, book: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    content, words, says = REFUSED[name]
    book.unlink()
    if content is not None:
        book.write_bytes(content)
    done = invoke("run", "-c", config, "-f", book, "-p", "Why?", "-n", 4, *words)
    assert done.exit_code == 2
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if not line.startswith("loading ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert says in errors[0]


def test_model_that_is_no_model(invoke: Invoke, config: Path, book: Path, tmp_path: Path) -> None:
    done = invoke("run", "-c", config, "-f", book, "-p", "Why?", "--model", tmp_path)
    assert done.exit_code == 2
    assert f"model.path = {str(tmp_path)!r}: has no config.json" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "--config", "x.yaml"],
        ["run", "--config", "no.yaml", "--prompt", "x"],
        ["run", "--config", "no.yaml", "--prompt", "x", "--max-new-tokens", "0"],
        ["run", "--config", "no.yaml", "--prompt", "x", "--no-such-option"],
        ["rum"],
    ],
)
def test_wrong_usage_is_exit_code_2(invoke: Invoke, words: list[str]) -> None:
    done = invoke(*words, input="text")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_unexpected_failure_says_how_to_see_it(
    invoke: Invoke, config: Path, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("something\nstrange")

    monkeypatch.setattr("inf_llm.generation.Session.read", broken)
    words = ("run", "-c", config, "-f", book, "-p", "Why?")
    done = invoke(*words)
    assert done.exit_code == 1
    assert "unexpected ZeroDivisionError: something\n" in done.stderr
    assert "--debug" in done.stderr
    assert isinstance(invoke(*words, "--debug").exception, ZeroDivisionError)


def test_interrupted_while_reading(
    invoke: Invoke, config: Path, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(session: object, ids: object, progress: object) -> None:
        progress(128, 726)  # type: ignore[operator]
        raise KeyboardInterrupt

    monkeypatch.setattr("inf_llm.generation.Session.read", interrupted)
    done = invoke("run", "-c", config, "-f", book, "-p", "Why?")
    assert done.exit_code == 130
    assert done.stderr.splitlines()[-1] == "stopped after 128 tokens"


def test_version_and_help(invoke: Invoke) -> None:
    version, native = invoke("--version").stdout.splitlines()
    assert version == f"inf-llm {inf_llm.__version__}"
    assert native == f"decode steps on a CPU: {in_use()}"
    helped = invoke("run", "--help", env={"COLUMNS": "120", "NO_COLOR": "1"})
    for word in ("--config", "--model", "--file", "--prompt", "--max-new-tokens", "model.topk=32"):
        assert word in helped.stdout


def _program(*words: object, **options: object) -> subprocess.Popen[str]:
    code = "from inf_llm.cli import main; main()"
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-c", code, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def test_as_a_program(config: Path, book: Path, tmp_path: Path) -> None:
    """The console script itself: nothing but the answer on its output, nothing left behind."""
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    program = _program("run", "-c", config, "-f", book, "-p", "Why?", "-n", 4, cwd=cwd)
    out, err = program.communicate(timeout=300)
    assert program.returncode == 0
    assert out.strip()
    assert err.splitlines()[0].startswith("loading ")
    assert err.splitlines()[-1].startswith("read 726 tokens")
    assert not list(cwd.iterdir())


def test_control_c_in_a_long_prefill(config: Path, book: Path) -> None:
    book.write_text("The quick brown fox jumps over the lazy dog. " * 20000)
    program = _program("run", "-c", config, "-f", book, "-p", "Why?", stdin=subprocess.DEVNULL)
    assert program.stderr is not None
    assert program.stderr.readline().startswith("loading ")
    assert program.stderr.readline().startswith("read ")  # the first line of progress
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=300)
    assert program.returncode == 130
    assert out == ""
    assert re.fullmatch(r"stopped after [\d,]+ tokens", err.splitlines()[-1])
    assert "Traceback" not in err


def test_missing_extra_says_what_to_install(
    invoke: Invoke, checkpoint: Path, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    config = write_config(tmp_path / "faiss.yaml", "inf-llm", str(checkpoint))
    done = invoke("run", "-c", config, "-f", book, "-p", "Why?", "-n", 2, "model.faiss=true")
    assert done.exit_code == 2
    assert "inf-llm[faiss]" in done.stderr
