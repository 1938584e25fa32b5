"""The terminal chat: questions, answers, and commands that begin with `!!`."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inf_llm.chat.memory import Reply
from inf_llm.chat.session import ChatSession
from inf_llm.cli.failures import say
from inf_llm.cli.options import memory_line
from inf_llm.cli.progress import TokenProgress
from inf_llm.cli.styles import Style
from inf_llm.cli.task import Task
from inf_llm.errors import InfLLMError, TextError, reason
from inf_llm.formats import DocumentText
from inf_llm.generation import read_document
from inf_llm.registry import nearest
from inf_llm.units import pace, size

SAVED = "inf-llm-chat.json"
"""File that `!!save` writes and `!!load` reads if no file is named."""
LONG = 2048
"""A progress bar is shown if at least this number of tokens is to be read."""


@dataclass
class Terminal:
    """A chat between a person at a terminal and a model.

    Attributes:
        chat: the conversation.
        style: the look of the chat.
        sampling: keyword arguments for `ChatSession.ask`.
        history: whether earlier questions and answers stay in the prompt; documents always stay.
        debug: whether to print the counts and times of answers, and the tracebacks of failures.
    """

    chat: ChatSession
    style: Style
    sampling: dict[str, Any] = field(default_factory=dict)
    history: bool = True
    debug: bool = False

    def run(self) -> None:
        """Run until `!!exit` or the end of input. Ctrl-C ends the current work, not the chat."""
        user = self.chat.layout.roles[0]
        while True:
            try:
                text = self.style.prompt_for_input(user)
            except EOFError:
                break
            except KeyboardInterrupt:
                print("\n!!exit or Ctrl-D leaves the chat")
                continue
            except UnicodeDecodeError as error:
                say(f"error: that was not text in UTF-8 ({error.reason})")
                continue
            if text.strip() == "!!exit":
                break
            self._guarded(text)
        print("exit...")

    def _guarded(self, text: str) -> None:
        """Handle one input; print an error as one message, so that the chat goes on."""
        try:
            self._handle(text)
        except KeyboardInterrupt as error:
            print(f"\n{str(error) or 'stopped'}.")
        except BrokenPipeError:
            raise  # the output has no reader
        except InfLLMError as error:
            say(f"error: {error}")
        except Exception as error:  # the process must not end: its memory would be lost
            say(f"unexpected {type(error).__name__}: {reason(error)}")
            if self.debug:
                say(traceback.format_exc())

    def _handle(self, text: str) -> None:
        if text.strip().startswith("!!"):
            name, _, words = text.strip().partition(" ")
            if name not in COMMANDS:
                raise TextError(f"{name} is not a command; {nearest(name, COMMANDS)}!!help")
            COMMANDS[name].act(self, words.strip())
        elif text.strip():
            self._answer(lambda **how: self.chat.ask(text, **how))

    def _answer(self, ask: Callable[..., Reply]) -> None:
        """Show an answer as it is decoded; a stopped answer is kept up to its last token."""

        def work(task: Task) -> Reply:
            how = {"on_text": task.emit, "on_progress": task.check, "should_stop": task.stopping}
            return ask(**how, **self.sampling)

        before = self.chat.transcript
        try:
            with Task(work) as task:
                items = iter(task)
                first = self._reading(items)
                self.style.prompt_for_output(self.chat.layout.roles[1])
                self.style.stream_output(_growing(first, items))
        except KeyboardInterrupt:
            kept = self.chat.transcript != before
            print(f"\nstopped; {'what was said stays' if kept else 'nothing was added'}.")
        else:
            kept = True
            if self.debug:
                say(_speed(task.result))
        if kept and not self.history:
            self.chat.remove_last()

    def _reading(self, items: Iterator[Any], least: int = LONG) -> str:
        """Show progress if `least` tokens or more are read; return the first text of the answer."""
        bar = TokenProgress(self._memory_line)
        shown = False
        try:
            for item in items:
                if isinstance(item, str):
                    return item
                done, total = item
                if not shown and total - done >= least:
                    shown = True  # set first, so that an interrupt in `__enter__` closes the bar
                    bar.__enter__()
                if shown:
                    bar(done, total)
            return ""
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped after {bar.done:,} tokens") from None
        finally:
            if shown:
                bar.__exit__(None, None, None)

    def _memory_line(self) -> str:
        return memory_line(self.chat.held().stats)

    def read(self, words: str) -> None:
        """`!!read FILE`: add a whole file to the conversation."""
        if not words:
            raise TextError("say which file: !!read FILE")
        path, document = file_document(words)
        text, origin = document.text, document.origin and f"{document.origin}, "
        print(f"reading {path.name}...", flush=True)
        started = time.perf_counter()
        with Task(lambda task: self.chat.add_document(text, path.name, task.check)) as task:
            self._reading(iter(task), 0)
        reuse, seconds = task.result, time.perf_counter() - started
        print(
            f"read {path.name}: {origin}{len(text):,} characters, {reuse.fed:,} tokens in "
            f"{pace(reuse.fed, seconds)}. Ask about it."
        )
        if self.debug:
            say(str(reuse))

    def memory(self, words: str) -> None:
        """`!!memory`: show what is kept in memory, and where."""
        held = self.chat.held()
        stats, recalled = held.stats, held.stats.hits + held.stats.misses
        print(f"tokens    {held.tokens:,}; questions go on from {_list(held.points)}")
        print(f"blocks    {stats.blocks:,} over all layers")
        print(f"device    {size(stats.device_bytes)}")
        print(f"host      {size(stats.host_bytes)}, index {size(stats.index_bytes)}")
        print(f"all kept  {size(held.bytes)}, what is shared counted once")
        if recalled:
            share = f"{stats.hits / recalled:.0%} of recalls were at hand"
            print(f"recalls   {stats.hits:,} hits, {stats.misses:,} misses: {share}")

    def reset(self, words: str) -> None:
        """`!!reset`: start an empty conversation, and forget what was read."""
        print("resetting...")
        self.chat.reset()

    def remove(self, words: str) -> None:
        """`!!remove`: remove the last question and answer, or a document that was just added."""
        self.chat.remove_last()
        print("removing last message...")
        self.show()

    def regenerate(self, words: str) -> None:
        """`!!regen`: answer the last question again."""
        if not self.chat.turns:
            raise TextError("there is no answer to regenerate")
        print("regenerating last message...")
        self._answer(self.chat.regenerate)

    def save(self, words: str) -> None:
        """`!!save [FILE]`: write the conversation with its documents, and its memory."""
        path = _json(words)
        self.chat.save(path)
        print(f"saved to {path}")

    def load(self, words: str) -> None:
        """`!!load [FILE]`: continue a conversation that this chat or FastChat saved."""
        path = Path(words or SAVED).expanduser()
        why_not = self.chat.load(path if path.exists() else _json(words))
        if why_not:
            say(f"it is read again with the next question: {why_not}")
        self.show()

    def show(self) -> None:
        """Show the conversation from its start."""
        roles = self.chat.layout.roles
        for index, turn in enumerate(self.chat.turns):
            for document in turn.documents:
                print(f"[{document.name}: {len(document.text):,} characters]")
            self.style.prompt_for_output(roles[index % 2])
            self.style.print_output(turn.content)
        for document in self.chat.documents:
            print(f"[{document.name}: {len(document.text):,} characters]")

    def help(self, words: str) -> None:
        """`!!help`: show this list."""
        for command in COMMANDS.values():
            print(command.described())


def file_document(name: str) -> tuple[Path, DocumentText]:
    """Return the path of a file, and the text in the file.

    Raises:
        TextError: there is no such file, or no text can be read from it.
        MissingExtraError: the package that reads files of its kind is not installed.
    """
    path = Path(name).expanduser()
    if name == "-" or (path.exists() and not path.is_file()):
        raise TextError(f"{path}: is not a file")
    return path, read_document(path)


@dataclass(frozen=True)
class Command:
    """A command of the chat."""

    act: Callable[[Terminal, str], None]

    def described(self) -> str:
        """Return usage and purpose, from the docstring of the function."""
        usage, _, purpose = (self.act.__doc__ or "").partition(": ")
        return f"  {usage.strip('`'):<16} {purpose}"


def _leave(terminal: Terminal, words: str) -> None:
    """`!!exit`: leave the chat; Ctrl-D does too. Ctrl-C stops an answer."""


COMMANDS = {
    "!!read": Command(Terminal.read),
    "!!memory": Command(Terminal.memory),
    "!!regen": Command(Terminal.regenerate),
    "!!remove": Command(Terminal.remove),
    "!!reset": Command(Terminal.reset),
    "!!save": Command(Terminal.save),
    "!!load": Command(Terminal.load),
    "!!help": Command(Terminal.help),
    "!!exit": Command(_leave),
}


def _growing(first: str, items: Iterator[Any]) -> Iterator[dict[str, str]]:
    """Yield a growing text for FastChat's styles: each item has all of the text so far."""
    text = first
    yield {"text": text}
    for piece in items:
        if isinstance(piece, str):
            text += piece
            yield {"text": text}


def _speed(reply: Reply) -> str:
    return (
        f"{reply.reuse}; first token after {pace(reply.reuse.fed, reply.reading)}; "
        f"{reply.new_tokens - 1} more in {pace(reply.new_tokens - 1, reply.answering)}"
    )


def _json(words: str) -> Path:
    path = Path(words or SAVED).expanduser()
    return path if "." in path.name else path.with_name(path.name + ".json")


def _list(points: tuple[int, ...]) -> str:
    return ", ".join(f"{point:,}" for point in points) or "the start"
