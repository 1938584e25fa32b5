"""The edges of the process: streams that are closed, empty or of another encoding, lost folders."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from inf_llm.cli.output import (
    WAITING,
    argument_text,
    prepare_process,
    require_output,
    require_writable,
)
from inf_llm.errors import SettingsError, TextError
from tests.chat.conftest import chat_tokenizer
from tests.checkpoints import write_config
from tests.cli.conftest import Invoke


def shell(line: str, **how: object) -> subprocess.CompletedProcess[bytes]:
    """A line of the shell, in which `inf-llm` is the console script."""
    program = shlex.join([sys.executable, "-c", "from inf_llm.cli import main; main()"])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **how.pop("environment", {})}
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        ["bash", "-c", line.replace("inf-llm ", f"{program} ")],
        capture_output=True,
        env=environment,
        timeout=300,
        **how,
    )


def test_how_threads_wait_is_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has set stays."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")  # so that it is as it was, afterwards
    monkeypatch.delenv("GOMP_SPINCOUNT")
    prepare_process()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert os.environ["GOMP_SPINCOUNT"] == WAITING["GOMP_SPINCOUNT"]


def test_without_standard_input_the_question_alone_is_answered(
    config: Path, invoke: Invoke
) -> None:
    done = shell(f"inf-llm run -c {config} -p Why? -n 4 <&-")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert b"\nread 4 tokens" in done.stderr
    empty = invoke("run", "-c", config, "-p", "Why?", "-n", 4, input="")
    assert empty.stdout_bytes == done.stdout
    assert "\nread 4 tokens" in empty.stderr


def test_closed_streams_are_not_reused_for_files(config: Path, book: Path, tmp_path: Path) -> None:
    """A file that is opened must not become what libraries print their errors to."""
    report = tmp_path / "out.html"
    line = f"inf-llm run -c {config} -f {book} -p Why? -n 4 --trace {report} <&- 2>&-"
    done = shell(line)
    assert done.returncode == 0
    assert done.stdout.strip()
    assert report.read_text().startswith("<!")
    code = "from inf_llm.cli.output import *; prepare_process(); print(open('/dev/null').fileno())"
    assert int(shell(f"{sys.executable} -c {shlex.quote(code)} <&- 2>&-").stdout) > 2


def test_an_answer_that_cannot_be_read_is_not_begun(config: Path, book: Path) -> None:
    done = shell(f"inf-llm run -c {config} -f {book} -p Why? -n 4 >&-")
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "error: standard output is closed, so an answer would be lost: open it"
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
@pytest.mark.parametrize(
    "command",
    ["--version", "--help", "run --help", "mask", "run -n 4 -p Why? --debug"],
)
def test_an_output_that_is_full_is_one_line(config: Path, command: str) -> None:
    config_option = "" if "-h" in command or command == "--version" else f" -c {config}"
    done = shell(f"inf-llm {command}{config_option} > /dev/full")
    assert done.returncode == 2
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("error: the output cannot be written (No space left on device): make")
    assert b"Traceback" not in done.stderr


def test_standard_output_of_another_encoding(
    checkpoint: Path, tmp_path: Path, invoke: Invoke
) -> None:
    """The tiny model says bytes of every kind; what ASCII lacks becomes a question mark."""
    config = write_config(tmp_path / "c.yaml", "stream-lm", str(checkpoint))
    plain = invoke("run", "-c", config, "-p", "café “x” 你", "-n", 24, input="")
    line = f"inf-llm run -c {config} -p 'café “x” 你' -n 24 </dev/null"
    narrow = shell(line, environment={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
    assert plain.exit_code == narrow.returncode == 0, narrow.stderr
    assert not plain.stdout.isascii()
    assert narrow.stdout == plain.stdout.encode("ascii", "replace")
    assert b"standard output is in ascii" in narrow.stderr


@pytest.mark.parametrize("command", ["run -p Why? -f book.txt", "ppl -f book.txt", "demo"])
def test_a_working_directory_that_is_gone(config: Path, tmp_path: Path, command: str) -> None:
    """Torch's mathematics library would end the process with a message of its own."""
    words = command.split()
    place = tmp_path / "gone"
    place.mkdir()
    options = "" if words[0] == "demo" else f"-c {config}"
    done = shell(f"cd {place} && rmdir {place} && inf-llm {command} {options}")
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: the working directory cannot be used (No such file")
    assert done.stderr.count(b"\n") == 1


def test_a_chat_without_anybody_is_not_begun(
    invoke: Invoke, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    done = shell(f"inf-llm chat -c {config} <&-")
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: standard input is closed")


def test_a_text_to_read_is_seen_before_the_model_is_loaded(
    invoke: Invoke, config: Path, tmp_path: Path
) -> None:
    done = invoke("chat", "-c", config, "--read", tmp_path / "none.txt")
    assert done.exit_code == 2
    assert "none.txt: cannot be read" in done.stderr
    assert "loading" not in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-p", "caf\udce9?", "-f", "BOOK"), "--prompt is not text in UTF-8 (character 3 "),
        (("-p", ""), "nothing to read and nothing to ask"),
        (("-p", "Why?", "-f", "PDF"), "a.pdf: is cut off or damaged"),
        (
            ("-p", "Why?", "--trace", "/nowhere/a.html"),
            "--trace /nowhere/a.html: cannot be written",
        ),
        (("-p", "Why?", "--trace", "/"), "cannot be written (Is a directory)"),
    ],
    ids=["prompt", "nothing", "pdf", "trace", "folder"],
)
def test_what_can_be_seen_before_is_seen_before_loading(
    invoke: Invoke, config: Path, book: Path, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    (tmp_path / "a.pdf").write_text("%PDF-1.4\n1 0 obj\n")
    files = {"BOOK": str(book), "PDF": str(tmp_path / "a.pdf")}
    done = invoke("run", "-c", config, *(files.get(word, word) for word in words), input="")
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr
    assert "loading" not in done.stderr


@pytest.mark.parametrize("command", [("mask", "--out"), ("demo", "--json"), ("demo", "--plot")])
def test_a_file_of_results_is_tried_first(
    invoke: Invoke, config: Path, command: tuple[str, str], tmp_path: Path
) -> None:
    name, option = command
    options = ("-c", config) if name == "mask" else ()
    done = invoke(name, *options, option, tmp_path / "no" / "file.png")
    assert done.exit_code == 2
    assert f"{option} {tmp_path / 'no' / 'file.png'}: cannot be written" in done.stderr


def test_trying_a_file_leaves_it_as_it_was(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("as it was")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    for path in (kept, tmp_path / "new", link, Path("/dev/null"), None):
        require_writable("--out", path)
    assert kept.read_text() == "as it was"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["kept", "link"]
    for wrong in (tmp_path, tmp_path / "no" / "file", tmp_path / ("x" * 300)):
        with pytest.raises(SettingsError, match=r"--out .* cannot be written"):
            require_writable("--out", wrong)


def test_a_pipe_is_not_opened_to_be_tried(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    require_writable("--out", tmp_path / "pipe")


def test_arguments_are_utf8_whatever_the_shell_was_set_to() -> None:
    typed = "café “x”".encode().decode("ascii", "surrogateescape")
    assert argument_text("--prompt", typed) == "café “x”"
    assert argument_text("--prompt", "café") == "café"
    with pytest.raises(TextError, match="--prompt is not text"):
        argument_text("--prompt", "caf\udce9")
    with pytest.raises(TextError, match="--prompt is not text"):
        argument_text("--prompt", "half \ud800")


def test_streams_are_made_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, encoding="latin-1"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("é".encode()), encoding="ascii"))
    monkeypatch.setattr("sys.stderr", None)
    prepare_process()
    print("“é”", flush=True)
    assert out.getvalue().strip() == b"?\xe9?"
    assert sys.stdin.read() == "é"
    print("nothing breaks", file=sys.stderr)
    monkeypatch.setattr("sys.stdout", None)
    prepare_process()
    with pytest.raises(SettingsError, match="standard output is closed"):
        require_output()


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for m in messages %}{{ m['content'] }", "does not take this conversation: "),
        ("{{ nothing.there }}", "does not take this conversation: 'nothing' is undefined"),
        ("{{ raise_exception('no system message') }}", "conversation: no system message"),
        ("{{ 'Hello' }}", "leaves out what the user says ('The quick brown"),
    ],
    ids=["syntax", "undefined", "refusal", "dropped"],
)
def test_a_template_that_fails_is_one_line(
    invoke: Invoke, checkpoint: Path, book: Path, tmp_path: Path, template: str, says: str
) -> None:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    config = write_config(tmp_path / "c.yaml", "inf-llm", str(checkpoint))
    other = f"model.tokenizer_path={tmp_path / 'tokenizer'}"
    done = invoke("run", "-c", config, "-f", book, "-p", "Why?", "-n", 2, other)
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the tokenizer's template")
    chat = invoke("chat", "-c", config, "-n", 2, other, input="The quick brown fox\n")
    assert chat.exit_code == 0
    assert "error: the tokenizer's template" in chat.stderr
