"""A session: a memory that reads one text and answers any number of questions about it.

    session = Session(model, tokenizer)
    session.read(book)
    print(session.fork().ask("Who is Pierre?").text)

Tokens are fed to the model in whole execution blocks; the tokens of an incomplete block wait for
the next text. An answer therefore does not depend on how the text was split, and equals the answer
of `model.generate` for the whole prompt at once.
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
from inf_llm.generation.rows import Piggyback, Row
from inf_llm.generation.text import ended_at
from inf_llm.generation.tokens import Readable, token_ids, vocabulary
from inf_llm.hf.cache import MemoryCache
from inf_llm.hf.decoder import device_of
from inf_llm.hf.identity import tokenizer_identity
from inf_llm.hf.saving import Extras, Note, open_memory, save_memory
from inf_llm.hf.witness import Witness
from inf_llm.memory.stats import MemoryStats
from inf_llm.not_picklable import NotPicklable, bare_copy


@dataclass(frozen=True)
class Answer:
    """An answer of the model.

    Attributes:
        text: the answer without special tokens, up to a stop text.
        token_ids: all generated token ids.
        prompt_tokens: number of tokens of the session before the answer.
        seconds: time from the question to the last token.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    seconds: float


class Session(NotPicklable):
    """Reads a text into a model's memory and answers from it.

    Args:
        model: a model, patched or not; an unpatched model keeps every token in its KV cache.
        tokenizer: the tokenizer of the model.
        chunk_size: tokens of one feed, rounded down to whole execution blocks but at least one
            block; the attribute has the rounded value.
        control_tokens: whether text such as "</s>" is encoded as a control token, so that a
            rendered template can be read; otherwise it is ordinary text.

    Raises:
        UnsupportedInputError: the arguments are not a model and its tokenizer.
        SettingsError: `chunk_size` is not a positive whole number.
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
        """All token ids of the session, including those that wait to be fed."""
        self.cache = empty_cache(model)
        self.chunk_size = feed_length(model, count("chunk_size", chunk_size))

    @property
    def fed(self) -> int:
        """Number of tokens in the memory."""
        return int(self.cache.get_seq_length())

    def read(self, text: Readable, on_progress: Progress | None = None) -> None:
        """Read a text or token ids after the tokens that were read before.

        Args:
            text: the text, or token ids as a list, a tensor or the output of a tokenizer.
            on_progress: called with the number of tokens done and the total number of tokens.

        Raises:
            TextError: the value is neither a text nor ids of the model's vocabulary.
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
        on_logits: Callable[[torch.Tensor], None] | None = None,
        piggyback: Piggyback | None = None,
    ) -> Iterator[int]:
        """Read as `read` does, in steps that feed at most `chunk_size` tokens each.

        Args:
            text: see `read`.
            on_logits: called with the logits (1, n, V) of all tokens of a feed. Without it only the
                logits of the last token are computed.
            piggyback: rows of other sessions that a feed may take along; ignored with `on_logits`.

        Yields:
            After each feed the number of tokens in the memory; a smaller number than before if the
            feed failed in `piggyback` and the memory was reset.
        """
        self.ids += token_ids(
            self.tokenizer, text, vocabulary(self.model), not self.ids, self._control_tokens
        )
        end = whole_blocks(self.model, len(self.ids))
        while self.fed < end:
            chunk = Row(self, most=min(end - self.fed, self.chunk_size))
            if on_logits is None:
                (piggyback or Piggyback()).feed(chunk)
            else:
                on_logits(chunk.feed(logits=0))
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
        """Read the text, then generate an answer.

        The session continues from the answer; call a `fork()` to keep the session unchanged. After
        a failure the session drops the question, unless a part of it was already fed.

        Args:
            text: a question, or token ids; empty to continue the text that was read.
            max_new_tokens: longest answer; None for that of a `generation_config`, or else 128.
            stop: a text, or several, that end the answer; they are not part of it.
            streamer: a streamer as for `generate`; receives only generated tokens.
            on_progress: see `read`.
            should_stop: called after every token; True ends the answer.
            sampling: other keywords of `generate` that suit a session; see `answer_options`.
                Without `do_sample` or a `temperature` decoding is greedy, whatever the checkpoint
                sets.

        Raises:
            TextError: the value is not a text, or both the session and the text are empty.
            SettingsError: a keyword is unknown, or its value is not accepted. Keywords are checked
                before any token is read: the session is then unchanged.
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
        decoded = self.tokenizer.decode(new, skip_special_tokens=True)
        return Answer(
            decoded[: ended_at(decoded, stops)], tuple(new), prompt, time.perf_counter() - started
        )

    def _answer(
        self,
        options: dict[str, Any],
        stops: tuple[str, ...],
        should_stop: Callable[[], bool] | None,
        streamer: Any,
    ) -> list[int]:
        """Generate the tokens of an answer, append them to the session and return them."""
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
        """Return an independent copy of the session; no token is read again."""
        twin = bare_copy(self)
        twin.ids = list(self.ids)
        twin.cache = copy.deepcopy(self.cache)
        return twin

    def save(
        self, folder: str | os.PathLike[str], *, overwrite: bool = False, note: Note | None = None
    ) -> None:
        """Write the session to a folder, or only the parts that an earlier save has not written.

        The folder also holds the token ids of the text.

        Args:
            folder: the folder, created if it does not exist.
            overwrite: whether to replace another memory in the folder.
            note: data in plain types that is stored in the manifest.

        Raises:
            SavedMemoryError: the folder holds another memory, or cannot be written. The folder and
                the session are then unchanged.
        """
        tokens = torch.tensor(self.ids, dtype=torch.int32)
        extras = Extras(tokens, tokenizer_identity(self.tokenizer), note or {})
        save_memory(self.cache, self.model, folder, extras=extras, overwrite=overwrite)

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], model: Any, tokenizer: Any, chunk_size: int = 8192
    ) -> Session:
        """Load a session that `save` wrote, in the state that it had.

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
        """Whether `cut` works at any length: true of a plain KV cache that keeps every token."""
        plain = not isinstance(self.cache, MemoryCache)
        return plain and all(type(layer) is DynamicLayer for layer in self.cache.layers)

    def cut(self, length: int) -> None:
        """Remove all but the first `length` tokens.

        Raises:
            CropError: the memory does not keep every token separately; a `fork()` made earlier
                allows a return to its length.
            SettingsError: `length` is not a whole number of at least 0.
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
        """Return the counts of the memory over all layers: tokens, blocks, bytes and transfers."""
        return held(self.cache)

    @contextmanager
    def whole_or_nothing(self) -> Iterator[None]:
        """Reset the memory if a feed within the `with` statement fails.

        After a failed feed some layers hold more tokens than others. The memory is therefore
        dropped, and rebuilt from `ids` when the session is used next, unless the feed failed before
        it changed any layer.
        """
        witness = Witness(self.cache)
        try:
            yield
        except BaseException:
            if not witness.unchanged():
                self.cache = empty_cache(self.model)
            raise

    def tensor(self, ids: Sequence[int]) -> torch.Tensor:
        """Return token ids as a tensor (1, n) on the device of the model."""
        return torch.tensor([ids], device=device_of(self.model))


def _check_pair(model: Any, tokenizer: Any) -> None:
    fits = callable(getattr(model, "generate", None)) and hasattr(model, "config")
    if not fits or not callable(tokenizer) or not hasattr(tokenizer, "decode"):
        raise UnsupportedInputError(
            f"a causal language model and its tokenizer are needed, not {type(model).__name__} and "
            f"{type(tokenizer).__name__}: inf_llm.load(config) gives both, in this order"
        )
