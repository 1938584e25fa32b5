"""A conversation with a model, about texts of any length.

    chat = ChatSession(model, tokenizer)
    chat.add_document(book, "book.txt")
    print(chat.ask("Who is Pierre?").text)
    print(chat.fork().ask("And Natasha?").text)

The memory holds the documents and the earlier turns, so a question costs only the tokens after
them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inf_llm.chat.memory import Held, ReadingMemory, Reply, Reuse
from inf_llm.chat.turns import (
    ASSISTANT,
    USER,
    Document,
    Transcript,
    Turn,
    load,
    save,
)
from inf_llm.checks import check_question, check_text, count, require, require_callable
from inf_llm.errors import SavedMemoryError, TextError
from inf_llm.generation import (
    Layout,
    Session,
    answer_ends,
    check_document,
    choose_layout,
    encode,
    fit,
)
from inf_llm.generation.ends import stop_texts
from inf_llm.generation.options import answer_options
from inf_llm.generation.prefill import Progress
from inf_llm.generation.text import AnswerText
from inf_llm.memory.stats import MemoryStats
from inf_llm.not_picklable import NotPicklable, bare_copy
from inf_llm.truncation import check_truncation, common_length


class ChatSession(NotPicklable):
    """Questions and answers with a model that keeps the documents and turns in its memory.

    Args:
        model: a model, patched or not.
        tokenizer: the tokenizer of the model.
        conv_type: layout of the messages: None for the tokenizer's own chat template, a name of the
            published configurations, or one of FastChat's.
        chunk_size: tokens per forward pass of the prefill.
        max_len: longest prompt with its answer, in tokens; None for no limit.
        truncation: the part that a longer prompt loses; see `inf_llm.generation.fit`.
        points: most states that are kept to go back to; each takes a window on the device.
        control_tokens: whether documents and questions may contain control tokens, such as
            "<|im_end|>"; otherwise these are read as ordinary text.

    Raises:
        SettingsError: `conv_type` is not known, or a number is out of range.
        UnsupportedInputError: `model` and `tokenizer` are not a model and its tokenizer.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        conv_type: str | None = None,
        chunk_size: int = 8192,
        *,
        max_len: int | None = None,
        truncation: str | None = None,
        points: int = 4,
        control_tokens: bool = False,
    ) -> None:
        self._memory = ReadingMemory(model, tokenizer, chunk_size, points)
        self.layout: Layout = choose_layout(tokenizer, conv_type, control_tokens)
        self._model, self._tokenizer = model, tokenizer
        check_truncation(truncation)
        self._max_len = None if max_len is None else count("max_len", max_len, 2)
        self._truncation = truncation
        self.transcript = Transcript()
        """All turns and documents. Another transcript may be assigned."""
        self._stats = MemoryStats()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The user's turns and the answers, in order."""
        return self.transcript.turns

    @property
    def documents(self) -> tuple[Document, ...]:
        """Texts that were added after the last answer; they precede the next question."""
        return self.transcript.documents

    def add_document(
        self, text: str, name: str = "text", on_progress: Progress | None = None
    ) -> Reuse:
        """Read a text into the memory, for the questions that follow.

        Args:
            text: the text.
            name: name of the text.
            on_progress: called with the number of tokens done and of all tokens. An exception that
                it raises ends the reading; the text is then not part of the conversation.

        Raises:
            TextError: the text is empty or not valid, or longer than `max_len` allows.
        """
        check_text("the name", name)
        require_callable("on_progress", on_progress)
        check_document(name, text)
        added = replace(
            self.transcript, documents=(*self.transcript.documents, Document(name, text))
        )
        ids = self._certain(added)
        if self._truncation is None or self._max_len is None or len(ids) < self._max_len:
            reuse = self._read(ids, 1, on_progress)[1]
        else:  # the prompt will be cut, so its first tokens are not certain
            reuse = Reuse(len(ids), len(ids), "continued")
        self.transcript = added
        return reuse

    def ask(
        self,
        text: str,
        max_new_tokens: int | None = None,
        on_text: Callable[[str], None] | None = None,
        on_progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
        stop: str | Sequence[str] | None = (),
        **sampling: Any,
    ) -> Reply:
        """Ask a question, and add the question and its answer to the conversation.

        A failure, or an interrupt (Ctrl-C), leaves the conversation as it was before.

        Args:
            text: the question.
            max_new_tokens: longest answer; None for the value in `generation_config`, or 512.
            on_text: called with each piece of the answer as soon as it is decoded.
            on_progress: see `add_document`.
            should_stop: called after every token; a true result ends the answer, which is kept.
            stop: a text, or several, at which the answer ends; the answer does not contain it.
            **sampling: arguments of `generate`: temperature, top_p, repetition_penalty, ... Without
                a temperature the most likely token is taken.

        Raises:
            TextError: the question is empty or not valid, or the prompt is longer than `max_len`
                allows.
            SettingsError: an argument is not known, or its value is not accepted.
        """
        check_question("the question", text)
        require_callable("on_text", on_text)
        require_callable("on_progress", on_progress)
        require_callable("should_stop", should_stop)
        stops = (*self.layout.stops, *stop_texts(stop))
        max_new_tokens = self._check(max_new_tokens, sampling)
        question = Turn(USER, text, self.transcript.documents)
        transcript = Transcript((*self.transcript.turns, question))
        started = time.perf_counter()
        session, reuse = self._read(self._ids(transcript), max_new_tokens, on_progress)
        streamer = AnswerText(self._tokenizer, stops, on_text or _ignore)
        session.ask(
            max_new_tokens=max_new_tokens,
            stop=stops,
            streamer=streamer,
            should_stop=should_stop,
            eos_token_id=answer_ends(self._model, self.layout),
            **sampling,
        )
        streamer.end()
        self._memory.answered(session)
        self._stats = session.stats()
        first = streamer.first or time.perf_counter()
        answer = streamer.text.strip()
        self.transcript = Transcript((*transcript.turns, Turn(ASSISTANT, answer)))
        return Reply(
            answer,
            reuse,
            streamer.tokens,
            first - started,
            time.perf_counter() - first,
            should_stop is not None and should_stop(),
        )

    def regenerate(self, **how: Any) -> Reply:
        """Ask the last question again; the keywords are those of `ask`.

        Raises:
            TextError: no question was asked.
        """
        before = self.transcript
        if not before.turns:
            raise TextError("there is no answer to regenerate")
        question = before.turns[-2]
        self.transcript = Transcript(before.turns[:-2], question.documents)
        try:
            reply = self.ask(question.content, **how)
        except BaseException:
            self.transcript = before
            raise
        self.transcript = replace(self.transcript, documents=before.documents)
        return reply

    def remove_last(self) -> None:
        """Remove the last document that waits for a question, or the last question and answer.

        The documents of a removed question wait for the next question.

        Raises:
            TextError: there is nothing to remove.
        """
        transcript = self.transcript
        if transcript.documents:
            self.transcript = replace(transcript, documents=transcript.documents[:-1])
        elif transcript.turns:
            self.transcript = Transcript(transcript.turns[:-2], transcript.turns[-2].documents)
        else:
            raise TextError("there is nothing to remove")

    def edit(self, index: int, content: str) -> None:
        """Replace the text of a turn, counted from 0; the later turns stay.

        Raises:
            TextError: there is no such turn, or `content` is not a valid text.
        """
        check_text("the turn", content)
        if not 0 <= index < len(self.turns):
            raise TextError(f"there is no turn {index}: the conversation has {len(self.turns)}")
        turns = list(self.turns)
        if turns[index].role == USER:
            check_question("the question", content)
        turns[index] = replace(turns[index], content=content)
        self.transcript = replace(self.transcript, turns=tuple(turns))

    def reset(self) -> None:
        """Remove all turns and documents, and clear the memory."""
        self.transcript, self._stats = Transcript(), MemoryStats()
        self._memory.clear()

    def save(self, path: str | Path) -> None:
        """Write the conversation with its documents to a JSON file, and its memory beside the file.

        `memory_folder` returns the folder of the memory, which is as private as the conversation.

        Raises:
            TextError: the conversation cannot be written.
            SavedMemoryError: the conversation is written, but its memory cannot be written.
        """
        save(path, self.transcript)
        self._memory.save(memory_folder(path))

    def load(self, path: str | Path) -> str | None:
        """Continue a conversation from a file that `save` or FastChat wrote.

        Tokens that are neither in the memory beside the file nor in the memory of this session are
        read with the next question.

        Returns:
            The reason why the memory beside the file cannot be used; None if it is used, or if
            there is none.

        Raises:
            TextError: the file cannot be read or is not a conversation; this conversation stays.
        """
        self.transcript = load(path)
        folder = memory_folder(path)
        if folder.is_dir():
            try:
                self._memory.load(folder)
            except SavedMemoryError as error:
                return str(error)
        return None

    def fork(self) -> ChatSession:
        """Return an independent copy of the conversation; nothing is read again for the copy."""
        twin = bare_copy(self)
        twin._memory = self._memory.fork()
        return twin

    def held(self) -> Held:
        """Return the content and size of the memory."""
        return Held(len(self._memory.last), self._stats, self._memory.lengths, self._memory.bytes)

    def _ids(self, transcript: Transcript) -> list[int]:
        prompt = self.layout.prompt([turn.message() for turn in transcript.turns])
        return encode(self._tokenizer, prompt, self.layout.adds_special)

    def _certain(self, transcript: Transcript) -> list[int]:
        """Return the first tokens of the next prompt, which do not depend on its question."""
        first, second = (
            self._ids(Transcript((*transcript.turns, Turn(USER, question, transcript.documents))))
            for question in ("What?", "1 2")
        )
        return first[: max(1, common_length(first, second))]

    def _read(
        self, ids: list[int], room: int, on_progress: Progress | None
    ) -> tuple[Session, Reuse]:
        if self._max_len is not None:
            ids = fit(ids, self._max_len - room, self._truncation)
        session, reuse = self._memory.follow(ids, on_progress)
        self._stats = session.stats()
        return session, reuse

    def _check(self, max_new_tokens: int | None, sampling: dict[str, Any]) -> int:
        """Check arguments of `Session.ask` before anything is read; return the longest answer."""
        for name in ("streamer", "stopping_criteria", "eos_token_id"):
            message = f"{name} is the conversation's own; on_text, should_stop and stop do the same"
            require(name not in sampling, name, message)
        options = answer_options(self._model, self._tokenizer, max_new_tokens, sampling, 512)
        return int(options["max_new_tokens"])


def memory_folder(path: str | Path) -> Path:
    """Return the folder of a conversation's memory, beside the file of the conversation."""
    return Path(path).expanduser().with_suffix(".memory")


def _ignore(text: str) -> None:
    pass
