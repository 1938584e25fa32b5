"""FastChat's styles, and the plain one where FastChat is absent."""

from __future__ import annotations

import io
import sys

import pytest

from inf_llm.cli.styles import PlainStyle, StyleChoice, choose_style
from inf_llm.errors import MissingExtraError, SettingsError

GROWING = [{"text": ""}, {"text": "One"}, {"text": "One two"}]


@pytest.fixture
def no_fastchat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastchat.serve", None)


def test_plain_stands_in(no_fastchat: None, capsys: pytest.CaptureFixture[str]) -> None:
    notes: list[str] = []
    style = choose_style(StyleChoice(), notes.append)
    assert isinstance(style, PlainStyle)
    assert "pip install 'inf-llm[chat]'" in notes[0]
    style.prompt_for_output("ASSISTANT")
    assert style.stream_output(GROWING) == "One two"
    style.print_output("Three")
    assert capsys.readouterr().out == "ASSISTANT: One two\nThree\n"


@pytest.mark.parametrize(
    "choice",
    [StyleChoice("rich"), StyleChoice("programmatic"), StyleChoice("simple", multiline=True)],
)
def test_the_others_say_what_to_install(no_fastchat: None, choice: StyleChoice) -> None:
    with pytest.raises(MissingExtraError, match=f"--style {choice.style}.*inf-llm\\[chat\\]"):
        choose_style(choice, print)


def test_what_does_not_go_together() -> None:
    with pytest.raises(SettingsError, match="mouse has no effect with style = 'simple'"):
        StyleChoice("simple", mouse=True)
    with pytest.raises(SettingsError, match="did you mean 'rich'"):
        StyleChoice("ritch")


def test_simple_is_fastchats(capsys: pytest.CaptureFixture[str]) -> None:
    cli = pytest.importorskip("fastchat.serve.cli", reason="needs inf-llm[chat]")
    style = choose_style(StyleChoice(), print)
    assert isinstance(style, cli.SimpleChatIO)
    style.stream_output(GROWING)
    assert capsys.readouterr().out == "One two\n"


def test_programmatic_ends_with_its_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fastchat.serve.cli", reason="needs inf-llm[chat]")
    style = choose_style(StyleChoice("programmatic"), print)
    monkeypatch.setattr("sys.stdin", io.StringIO("Who\nis it? __END_OF_A_MESSAGE_47582648__\nmore"))
    assert style.prompt_for_input("USER") == "Who\nis it?"
    assert capsys.readouterr().out == "[!OP:USER]: Who\nis it?\n"
    with pytest.raises(EOFError):
        style.prompt_for_input("USER")
