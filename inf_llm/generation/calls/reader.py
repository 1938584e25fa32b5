"""Separation of text and function calls in an answer while it is generated."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from inf_llm.generation.calls.base import Call, CallForm, call_of, values
from inf_llm.generation.text import open_end

_FENCE = "```json"
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*(?:```\s*)?", re.DOTALL)


class CallReader:
    """Separates the plain text and the calls of one answer.

    Text that may be a call is held back until the answer is complete. It is a call only if it is
    complete and has the name of an offered function; everything else is plain text. Some models
    leave out the marks of their form. Without the marks, calls are recognised only if the whole
    answer consists of their JSON, with or without a code block around it.

    Args:
        form: call form of the model.
        names: names of the offered functions.
    """

    def __init__(self, form: CallForm, names: Sequence[str]) -> None:
        self._form, self._names = form, names
        self._text = ""
        self._returned = 0

    @property
    def words(self) -> str:
        """Plain text of the answer that `put` and `end` have returned."""
        return self._text[: self._returned]

    def put(self, piece: str) -> str:
        """Add a piece of the answer; return the next part that is certainly plain text."""
        self._text += piece
        return self._say(self._certain())

    def end(self) -> tuple[str, list[Call]]:
        """Complete the answer; return the rest of its plain text and its calls."""
        at = self._opened()
        before, rest = self._text[:at], self._text[at:]
        calls = self._calls(self._form.calls(rest)) if rest else []
        if not calls and self._returned == 0:
            calls, before = self._calls(_bare(self._text)), ""
        if not calls:
            return self._say(len(self._text)), []
        return self._say(len(before.rstrip())), calls

    def _say(self, end: int) -> str:
        text = self._text[self._returned : end]
        self._returned = max(self._returned, end)
        return text

    def _certain(self) -> int:
        """Return the number of first characters of the answer that cannot be part of a call."""
        if self._returned == 0 and _may_be_bare(self._text):
            return 0
        certain = self._text[: self._opened()]
        if len(certain) == len(self._text):
            certain = certain[: len(certain) - open_end(certain, self._form.opens)]
        return len(certain.rstrip())

    def _opened(self) -> int:
        """Return the position where a call begins, or the length of the text."""
        found = [self._text.find(mark) for mark in self._form.opens if mark in self._text]
        return min(found, default=len(self._text))

    def _calls(self, given: list[Any] | None) -> list[Call]:
        """Return the calls of JSON values; an empty list if any value is not a call."""
        lists = [value if isinstance(value, list) else [value] for value in given or ()]
        calls = [call_of(value, self._names) for value in itertools.chain(*lists)]
        return [] if None in calls else [call for call in calls if call is not None]


def _bare(text: str) -> list[Any] | None:
    fenced = _FENCED.fullmatch(text.strip())
    return values(fenced[1] if fenced else text)


def _may_be_bare(text: str) -> bool:
    """Return whether more text can complete an answer to JSON, or to a code block with JSON."""
    rest = text.lstrip()
    if _FENCE.startswith(rest):
        return True
    for fence in (_FENCE, "```"):
        if rest.startswith(fence):
            rest = rest[len(fence) :].lstrip()
            break
    return not rest or rest[0] in "{["
