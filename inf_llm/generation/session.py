"""A session: one text being read, any number of questions about it.

    session = Session(model, tokenizer)
    session.read(book)
    print(session.fork().ask("Who is Pierre?").text)

Tokens go to the model in whole execution blocks, and what does not fill one waits for what comes
next. So an answer does not depend on how the text before it was cut, and equals that of
`model.generate` on the whole prompt at once.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from inf_llm.checks import count, require_callable, require_type
from inf_llm.errors import CropError, SavedMemoryError, TextError, UnsupportedInputError
from inf_llm.generation.decoding import Decoding, step
from inf_llm.generation.ends import Ended, stop_texts
from inf_llm.generation.options import answer_options
from inf_llm.generation.prefill import (
    Progress,
    empty_cache,
    feed_length,
    held,
    whole_blocks,
)
from inf_llm.generation.rows import Company, Row
from inf_llm.generation.text import ended_at
from inf_llm.generation.tokens import Readable, token_ids, vocabulary
from inf_llm.hf.cache import MemoryCache
from inf_llm.hf.decoder import device_of
from inf_llm.hf.identity import tokenizer_identity
from inf_llm.hf.saving import Extras, Note, open_memory, save_memory
from inf_llm.hf.witness import Witness
from inf_llm.memory.stats import MemoryStats
from inf_llm.unsaved import Unsaved, bare_copy


@dataclass(frozen=True)
class Answer:
    """What the model said.

    Attributes:
        text: the answer, special tokens and what follows a stop text left out.
        token_ids: its tokens as generated.
        prompt_tokens: tokens of the session before it.
        seconds: from the question to the last token.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    seconds: float


class Session(Unsaved):
    """Reads a text into a model's memory and answers from it.

    Args:
        model: a model, patched or not; unpatched it keeps every token, as it always does.
        tokenizer: the model's.
        chunk_size: tokens fed at a time, rounded down to whole execution blocks; the attribute has
            what came of it.
        control_tokens: whether a text may have control tokens, as "</s>" may be one, so that a
            rendered template can be read; else they are ordinary text.

    Raises:
        UnsupportedInputError: these are not a model and its tokenizer.
        SettingsError: `chunk_size` is no count.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        chunk_size: int = 8192,
        *,
        control_tokens: bool = False,
    ) -> None:
        _check_pair(model, tokenizer)
        require_type("control_tokens", control_tokens, bool)
        self._control_tokens = control_tokens
        self.model = model
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        """Every token of the session, those that wait to be fed included."""
        self.cache = empty_cache(model)
        self.chunk_size = feed_length(model, count("chunk_size", chunk_size))

    @property
    def fed(self) -> int:
        """Tokens that are in the memory."""
        return int(self.cache.get_seq_length())

    def read(self, text: Readable, on_progress: Progress | None = None) -> None:
        """Read a text, or token ids. Several calls read on.

        Args:
            text: the text; token ids may be a list, a tensor or what a tokenizer returned.
            on_progress: called with the tokens done and the tokens in all.

        Raises:
            TextError: it is neither a text nor ids that the model knows.
        """
        require_callable("on_progress", on_progress)
        for fed in self.reading(text):
            if on_progress is not None:
                on_progress(fed, len(self.ids))
        if on_progress is not None:
            on_progress(len(self.ids), len(self.ids))

    def reading(
        self,
        text: Readable = "",
        hear: Callable[[torch.Tensor], None] | None = None,
        company: Company | None = None,
    ) -> Iterator[int]:
        """The same in steps: each item that is taken is a feed of at most `chunk_size` tokens.

        Args:
            text: see `read`.
            hear: called with the logits (1, n, V) of every feed; they are not computed without it.
            company: answers of other sessions that each feed may take along; none with `hear`.

        Returns:
            After each feed the tokens in the memory; fewer than before where one in company failed.
        """
        self.ids += token_ids(
            self.tokenizer, text, vocabulary(self.model), not self.ids, self._control_tokens
        )
        end = whole_blocks(self.model, len(self.ids))
        while self.fed < end:
            chunk = Row(self, most=min(end - self.fed, self.chunk_size))
            if hear is None:
                (company or Company()).feed(chunk)
            else:
                hear(chunk.feed(logits=0))
            yield self.fed

    def ask(
        self,
        text: Readable = "",
        max_new_tokens: int | None = None,
        stop: str | Sequence[str] | None = (),
        streamer: Any = None,
        on_progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
        **sampling: Any,
    ) -> Answer:
        """Read the text, then let the model continue.

        The session goes on from the answer; ask a `fork()` to keep it as it was. After a failure a
        question is not part of it, unless some of it was fed already.

        Args:
            text: a question, or token ids; nothing to continue what was read.
            max_new_tokens: longest answer; None for that of a `generation_config`, else 128.
            stop: a text, or several, at which the answer ends; they are not part of it.
            streamer: as `generate` takes it; gets the new tokens only.
            on_progress: as in `read`.
            sampling: what else `generate` takes and suits a session; see `answer_options`. Without
                `do_sample` or a `temperature` the answer is greedy, whatever the checkpoint says.

        Raises:
            TextError: it is no text, or nothing was read and nothing is asked.
            SettingsError: a keyword is not known, or its value not accepted. Like all that can be
                known beforehand it is said before anything is read: the session is as it was.
        """
        started = time.perf_counter()
        options = answer_options(self.model, self.tokenizer, max_new_tokens, sampling)
        stops = stop_texts(stop)
        require_callable("streamer", streamer, "put", "end")
        require_callable("should_stop", should_stop)
        asked_at = len(self.ids)
        try:
            self.read(text, on_progress)
            prompt = len(self.ids)
            new = self._answer(options, stops, should_stop, streamer)
        except BaseException:
            if self.fed <= asked_at:
                del self.ids[asked_at:]
            raise
        said = self.tokenizer.decode(new, skip_special_tokens=True)
        return Answer(
            said[: ended_at(said, stops)], tuple(new), prompt, time.perf_counter() - started
        )

    def _answer(
        self,
        options: dict[str, Any],
        stops: tuple[str, ...],
        should_stop: Callable[[], bool] | None,
        streamer: Any,
    ) -> list[int]:
        """Tokens that follow what was read, which then belong to it."""
        if not self.ids:
            raise TextError("the prompt is empty: read a text or ask something first")
        if stops or should_stop:
            ends = Ended(self.tokenizer, stops, should_stop, len(self.ids))
            options["stopping_criteria"] = [*options.get("stopping_criteria", ()), ends]
        with self.whole_or_nothing():
            row = Decoding(self, options, streamer)
            while not row.over:
                step([row])
        return row.new

    def fork(self) -> Session:
        """A session that goes on by itself from here; what was read is not read again."""
        twin = bare_copy(self)
        twin.ids = list(self.ids)
        twin.cache = copy.deepcopy(self.cache)
        return twin

    def save(
        self, folder: str | os.PathLike[str], *, overwrite: bool = False, note: Note | None = None
    ) -> None:
        """Write the session to a folder, or add to it what is new since the last time.

        The folder holds the text itself, as token ids.

        Args:
            folder: where; it is made if it is absent.
            overwrite: replace another memory that the folder holds.
            note: anything in plain types, to be found again in its manifest.

        Raises:
            SavedMemoryError: the folder holds another memory, or cannot be written. It is as it
                was, and so is the session.
        """
        tokens = torch.tensor(self.ids, dtype=torch.int32)
        extras = Extras(tokens, tokenizer_identity(self.tokenizer), note or {})
        save_memory(self.cache, self.model, folder, extras=extras, overwrite=overwrite)

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], model: Any, tokenizer: Any, chunk_size: int = 8192
    ) -> Session:
        """The session that `save` wrote, as if it had gone on in this process.

        Raises:
            SavedMemoryError: the folder holds no session, or one of another model, tokenizer or
                settings, or is damaged.
        """
        session = cls(model, tokenizer, chunk_size)
        saved = open_memory(folder, model, tokenizer_identity(tokenizer))
        if saved.tokens is None:
            raise SavedMemoryError(
                f"{folder} holds a cache without its token ids: open it with inf_llm.load_memory"
            )
        session.ids, session.cache = saved.tokens.tolist(), saved.cache
        return session

    @property
    def can_cut(self) -> bool:
        """Whether `cut` works at any length: where every token is kept, and nothing else."""
        plain = not isinstance(self.cache, MemoryCache)
        return plain and all(type(layer) is DynamicLayer for layer in self.cache.layers)

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens.

        Raises:
            CropError: the memory has merged or dropped tokens; a `fork()` made in time goes back.
            SettingsError: `length` is no count.
        """
        length = count("length", length, 0)
        if not self.can_cut:
            raise CropError(
                f"cannot go back to {length} of {len(self.ids)} tokens: not every token is kept "
                "apart; go on from a fork made there"
            )
        if self.fed > length:
            self.cache.crop(length - self.fed)
        del self.ids[length:]

    def stats(self) -> MemoryStats:
        """What the memory holds and what it cost, over all layers."""
        return held(self.cache)

    @contextmanager
    def whole_or_nothing(self) -> Iterator[None]:
        """Of a feed that breaks off, some layers have seen more than others.

        So all is let go, and read again from `ids` when the session is used next; unless it broke
        off before any layer was fed.
        """
        witness = Witness(self.cache)
        try:
            yield
        except BaseException:
            if not witness.unchanged():
                self.cache = empty_cache(self.model)
            raise

    def tensor(self, ids: Sequence[int]) -> torch.Tensor:
        """Token ids as the model takes them (1, n)."""
        return torch.tensor([ids], device=device_of(self.model))


def _check_pair(model: Any, tokenizer: Any) -> None:
    fits = callable(getattr(model, "generate", None)) and hasattr(model, "config")
    if not fits or not callable(tokenizer) or not hasattr(tokenizer, "decode"):
        raise UnsupportedInputError(
            f"a causal language model and its tokenizer are needed, not {type(model).__name__} and "
            f"{type(tokenizer).__name__}: inf_llm.load(config) gives both, in this order"
        )
