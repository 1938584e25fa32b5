"""An answer that may have calls, as it comes: what is said, and what is called."""

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
    """Separates words and calls of one answer.

    What may be a call is held until the answer is complete: a call is only one if all of it is
    there, with the name of a function that was offered. Everything else is words. Models that leave
    out the marks of their form are understood where nothing else can be meant: the whole answer is
    such JSON, be it in a code block.

    Args:
        form: of the model's calls.
        names: functions that were offered.
    """

    def __init__(self, form: CallForm, names: Sequence[str]) -> None:
        self._form, self._names = form, names
        self._text = ""
        self._said = 0

    @property
    def words(self) -> str:
        """What of the answer is words, so far."""
        return self._text[: self._said]

    def put(self, piece: str) -> str:
        """More of the answer; what of it is words for certain."""
        self._text += piece
        return self._say(self._certain())

    def end(self) -> tuple[str, list[Call]]:
        """The answer is complete: the words that are left, and its calls."""
        at = self._opened()
        before, rest = self._text[:at], self._text[at:]
        calls = self._calls(self._form.calls(rest)) if rest else []
        if not calls and self._said == 0:
            calls, before = self._calls(_bare(self._text)), ""
        if not calls:
            return self._say(len(self._text)), []
        return self._say(len(before.rstrip())), calls

    def _say(self, end: int) -> str:
        said = self._text[self._said : end]
        self._said = max(self._said, end)
        return said

    def _certain(self) -> int:
        """Characters of the answer that no call can be in."""
        if self._said == 0 and _may_be_bare(self._text):
            return 0
        certain = self._text[: self._opened()]
        if len(certain) == len(self._text):
            certain = certain[: len(certain) - open_end(certain, self._form.opens)]
        return len(certain.rstrip())

    def _opened(self) -> int:
        """Where a call begins, or the end of the text."""
        found = [self._text.find(mark) for mark in self._form.opens if mark in self._text]
        return min(found, default=len(self._text))

    def _calls(self, given: list[Any] | None) -> list[Call]:
        """Calls of some values; none where one of them is something else."""
        lists = [value if isinstance(value, list) else [value] for value in given or ()]
        calls = [call_of(value, self._names) for value in itertools.chain(*lists)]
        return [] if None in calls else [call for call in calls if call is not None]


def _bare(text: str) -> list[Any] | None:
    fenced = _FENCED.fullmatch(text.strip())
    return values(fenced[1] if fenced else text)


def _may_be_bare(text: str) -> bool:
    """Whether more text can make JSON of this beginning, or a code block with JSON."""
    said = text.lstrip()
    if _FENCE.startswith(said):
        return True
    for fence in (_FENCE, "```"):
        if said.startswith(fence):
            said = said[len(fence) :].lstrip()
            break
    return not said or said[0] in "{["
