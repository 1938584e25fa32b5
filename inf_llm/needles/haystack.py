"""Texts that hide a needle: prose, or a few sentences repeated again and again."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache

from inf_llm.errors import SettingsError

# The filler of the passkey test (Mohtashami and Jaggi, 2023), one repetition per line.
NOISE = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
)


class Haystack:
    """A text as words, each with the space after it, and the places where sentences end.

    The text is read in a circle, so it serves any length. Line breaks inside a paragraph become
    spaces.
    """

    def __init__(self, text: str) -> None:
        paragraphs = re.split(r"\n\s*\n", text.strip())
        plain = "\n\n".join(re.sub(r"[^\S\n]*\n[^\S\n]*", " ", part) for part in paragraphs)
        self._set_words(re.findall(r"\S+\s*", plain))

    @classmethod
    def lines(cls, text: str) -> Haystack:
        """Make a haystack that keeps every line break."""
        self = cls.__new__(cls)
        self._set_words(re.findall(r"\S+\s*", text))
        return self

    def _set_words(self, words: list[str]) -> None:
        if not words:
            raise SettingsError("the haystack is empty: give a text with at least one word")
        if not words[-1][-1].isspace():
            words[-1] += " "
        self.words = words
        ends = [i for i, word in enumerate(words, 1) if word.rstrip().endswith((".", "!", "?"))]
        self.sentence_ends = ends or [len(words)]

    def start_near(self, share: float) -> int:
        """Return the index of a sentence's first word, at about `share` (0 to 1) of the text."""
        place = bisect_left(self.sentence_ends, int(share * len(self.words)))
        return self.sentence_ends[place % len(self.sentence_ends)] % len(self.words)

    def take(self, start: int, n: int) -> list[str]:
        """Return `n` words from `start` on; after the last word the first one follows."""
        size = len(self.words)
        rounds, rest = divmod(n, size)
        turned = self.words[start:] + self.words[:start] if start else self.words
        return turned * rounds + turned[:rest]


@lru_cache(maxsize=4)
def _prose(text: str) -> Haystack:
    return Haystack(text)


@lru_cache(maxsize=1)
def _noise() -> Haystack:
    return Haystack.lines(NOISE)


def haystack_of(text: str | None) -> Haystack:
    """Return the haystack of a text, or of the noise sentences if `text` is None."""
    return _noise() if text is None else _prose(text)


def insert(words: list[str], needles: Sequence[tuple[float, str]]) -> str:
    """Join the words, with each needle at the sentence end nearest to its depth (0 to 1)."""
    size = len(words)
    ends = [0]
    ends += [i for i, word in enumerate(words, 1) if word.rstrip().endswith((".", "!", "?"))]
    if ends[-1] != size:
        ends.append(size)
    pieces: list[str] = []
    done = 0
    for place, needle in sorted(
        ((_nearest(ends, depth * size), needle) for depth, needle in needles), key=lambda p: p[0]
    ):
        pieces.append("".join(words[done:place]))
        pieces.append(_between(pieces[-1], needle))
        done = place
    pieces.append("".join(words[done:]))
    return "".join(pieces)


def _nearest(ends: list[int], place: float) -> int:
    i = bisect_left(ends, place)
    around = ends[max(0, i - 1) : i + 1]
    return min(around, key=lambda end: abs(end - place))


def _between(before: str, needle: str) -> str:
    """Return the needle, followed by the same white space that stands before it."""
    gap = before[len(before.rstrip()) :]
    return needle + (gap or " ")
