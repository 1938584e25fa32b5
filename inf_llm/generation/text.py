"""Conversion of generated tokens to text: whole characters only, and only up to a stop text."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

_REPLACEMENT = "\ufffd"  # decoded text of an incomplete character


class AnswerText:
    """A streamer for `generate` that emits text as soon as it is final.

    Args:
        tokenizer: the tokenizer of the model.
        stops: texts that end the answer; they are not part of it.
        say: called with each piece of text.
        special: whether the text of special tokens is included.
        without: ids of tokens that are left out of the text.

    Attributes:
        text: the emitted text.
        tokens: number of tokens received.
        stopped: whether a stop text was found.
        first: time of the first token, by `time.perf_counter`; None before it.
    """

    def __init__(
        self,
        tokenizer: Any,
        stops: tuple[str, ...],
        say: Callable[[str], None],
        special: bool = False,
        without: Collection[int] = (),
    ) -> None:
        self.text = ""
        self.tokens = 0
        self.stopped = False
        self.first: float | None = None
        self._tokenizer, self._stops, self._say = tokenizer, stops, say
        self._skip, self._without = not special, without
        self._ids: list[int] = []
        self._from = 0  # tokens before this index are not decoded again
        self._next = 0  # tokens from this index on have not been decoded to text
        self._held = ""  # decoded text that may be the beginning of a stop text

    def put(self, value: Any) -> None:
        """Receive more token ids from `generate`, a tensor of any shape."""
        if self.first is None:
            self.first = time.perf_counter()
        new = value.flatten().tolist()
        self.tokens += len(new)
        self._ids += [token for token in new if token not in self._without]
        self._decode(final=False)

    def end(self) -> None:
        """Emit the rest of the text after the last token; may be called twice."""
        self._decode(final=True)
        if not self.stopped and self._held:
            self._emit(self._held)
            self._held = ""

    def _decode(self, final: bool) -> None:
        """Decode the newest tokens together with earlier ones, which may change their text."""
        before = self._text(self._from, self._next)
        after = self._text(self._from, len(self._ids))
        if len(after) <= len(before) or (after.endswith(_REPLACEMENT) and not final):
            return
        self._from, self._next = self._next, len(self._ids)
        self._take(after[len(before) :])

    def _text(self, first: int, last: int) -> str:
        ids = self._ids[first:last]
        return str(self._tokenizer.decode(ids, skip_special_tokens=self._skip))

    def _take(self, piece: str) -> None:
        """Emit all text before a stop text; hold back an end that may begin a stop text."""
        if self.stopped:
            return
        self._held += piece
        end = ended_at(self._held, self._stops)
        self.stopped = end is not None
        certain = len(self._held) - open_end(self._held, self._stops) if end is None else end
        self._emit(self._held[:certain])
        self._held = self._held[certain:]

    def _emit(self, piece: str) -> None:
        if piece:
            self.text += piece
            self._say(piece)


def ended_at(text: str, stops: Sequence[str]) -> int | None:
    """Return the first position of any stop text in a text; None if there is none."""
    return min((text.find(stop) for stop in stops if stop in text), default=None)


def open_end(text: str, stops: Sequence[str]) -> int:
    """Return the length of the longest suffix of a text that is an incomplete stop text."""
    longest = max((len(stop) for stop in stops), default=1)
    for length in range(min(longest - 1, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0
