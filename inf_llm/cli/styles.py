"""Styles of the terminal chat: those of FastChat, and a plain one if FastChat is absent."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from inf_llm.checks import one_of, require
from inf_llm.errors import MissingExtraError

STYLES = ("simple", "rich", "programmatic")


@dataclass(frozen=True)
class StyleChoice:
    """The name of a style, and its options.

    Attributes:
        style: one of `STYLES`.
        multiline: whether a question may have several lines.
        mouse: whether the mouse moves the cursor, in "rich".
    """

    style: str = "simple"
    multiline: bool = False
    mouse: bool = False

    def __post_init__(self) -> None:
        one_of(self, "style", STYLES)
        for key, only in (("multiline", ("simple", "rich")), ("mouse", ("rich",))):
            require(
                not getattr(self, key) or self.style in only,
                key,
                f"{key} has no effect with style = {self.style!r}: it belongs to "
                f"{' and '.join(only)}",
            )


class Style(Protocol):
    """Interface of FastChat's `ChatIO`: input of questions, and output of answers."""

    def prompt_for_input(self, role: str) -> str:
        """Read the input of a role; raise `EOFError` at the end of the input."""

    def prompt_for_output(self, role: str) -> None:
        """Show the name of the role whose text follows."""

    def stream_output(self, output_stream: Iterable[dict[str, str]]) -> str:
        """Show a growing text, and return it; each item has the text so far under "text"."""

    def print_output(self, text: str) -> None:
        """Show a text."""


class PlainStyle:
    """Reads a line of input, and prints text as soon as it is decoded."""

    def prompt_for_input(self, role: str) -> str:
        """See `Style`."""
        return input(f"{role}: ")

    def prompt_for_output(self, role: str) -> None:
        """See `Style`."""
        print(f"{role}: ", end="", flush=True)

    def stream_output(self, output_stream: Iterable[dict[str, str]]) -> str:
        """See `Style`."""
        text = ""
        for output in output_stream:
            print(output["text"][len(text) :], end="", flush=True)
            text = output["text"]
        print(flush=True)
        return text

    def print_output(self, text: str) -> None:
        """See `Style`."""
        print(text)


def choose_style(choice: StyleChoice, note: Callable[[str], None]) -> Style:
    """Return the chosen style.

    Args:
        choice: name and options of the style.
        note: called with a message if the plain style replaces "simple".

    Raises:
        MissingExtraError: the choice needs FastChat, which cannot be imported.
    """
    if choice.style == "simple":
        with contextlib.suppress(ImportError):  # not on Windows
            import readline  # noqa: F401 (the import gives line editing and history)
    try:
        from fastchat.serve import cli
    except ImportError as error:
        if choice != StyleChoice():
            wanted = f"--style {choice.style}{' --multiline' if choice.multiline else ''}"
            raise MissingExtraError(
                f"{wanted} is FastChat's, which cannot be imported ({error}): "
                "pip install 'inf-llm[chat]', or leave it out"
            ) from None
        note("FastChat is not installed: a plain style stands in; pip install 'inf-llm[chat]'")
        return PlainStyle()
    factories: dict[str, Callable[[], Any]] = {
        "simple": lambda: cli.SimpleChatIO(choice.multiline),
        "rich": lambda: cli.RichChatIO(choice.multiline, choice.mouse),
        "programmatic": lambda: _EndingInput(cli.ProgrammaticChatIO()),
    }
    style: Style = factories[choice.style]()
    return style


class _EndingInput:
    """FastChat's programmatic style with an end; by itself it waits forever after its input."""

    def __init__(self, style: Any) -> None:
        self._style = style

    def __getattr__(self, name: str) -> Any:
        return getattr(self._style, name)

    def prompt_for_input(self, role: str) -> str:
        with _ended_input():
            try:
                return str(self._style.prompt_for_input(role))
            except _Ended:
                raise EOFError from None


class _Ended(Exception):  # noqa: N818 (FastChat ignores an EOFError)
    pass


class _Reader:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, count: int) -> str:
        text = str(self._stream.read(count))
        if not text:
            raise _Ended
        return text


@contextlib.contextmanager
def _ended_input() -> Iterator[None]:
    real = sys.stdin
    sys.stdin = _Reader(real)
    try:
        yield
    finally:
        sys.stdin = real
