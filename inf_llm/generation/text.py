"""Generated tokens to text, piece by piece: whole characters only, and never past a stop text."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

_REPLACEMENT = "\ufffd"  # what half a character decodes to


class AnswerText:
    """A streamer for `generate` that passes text on as soon as it is certain.

    Args:
        tokenizer: the model's.
        stops: texts at which the answer ends; they are not part of it.
        say: called with each new piece.
        special: the text of special tokens counts too.
        without: tokens that are no part of the text.

    Attributes:
        text: what was said so far.
        tokens: tokens put so far.
        stopped: whether a stop text was met.
        first: when the first token came, by `time.perf_counter`.
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
        self._from = 0  # tokens before this one are decoded for good
        self._next = 0  # tokens from here on have not been said
        self._held = ""  # decoded, but may become a stop text

    def put(self, value: Any) -> None:
        """More tokens, as `generate` gives them."""
        if self.first is None:
            self.first = time.perf_counter()
        new = value.flatten().tolist()
        self.tokens += len(new)
        self._ids += [token for token in new if token not in self._without]
        self._decode(final=False)

    def end(self) -> None:
        """No more tokens come; may be called twice."""
        self._decode(final=True)
        if not self.stopped and self._held:
            self._emit(self._held)
            self._held = ""

    def _decode(self, final: bool) -> None:
        """Decode the newest tokens next to those before, for a token's text may depend on them."""
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
        """Say what cannot be part of a stop text any more."""
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
    """Where the first of some texts begins in a text; None where none does."""
    return min((text.find(stop) for stop in stops if stop in text), default=None)


def open_end(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of a text that one of some texts begins with, and goes on."""
    longest = max((len(stop) for stop in stops), default=1)
    for length in range(min(longest - 1, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0
