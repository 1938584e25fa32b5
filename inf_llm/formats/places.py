"""The text of a document, and the places of its pages or headings."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST_LABEL = 120
"""Most characters of a label; a longer heading is cut."""


@dataclass(frozen=True, order=True)
class Place:
    """A part of a text that has a name.

    Attributes:
        start, end: the characters [start, end) of the part.
        label: "page 3", or a heading.
    """

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class DocumentText:
    """The text read from a file.

    Attributes:
        text: the whole text.
        places: pages, or parts that begin with a heading, in ascending order. A part ends where
            the next page or heading begins, the last one at the end of the text. Text before the
            first heading, or in a chapter without a name, is in no place.
        origin: the source of the text, such as "a PDF of 36 pages"; empty for text in UTF-8.
    """

    text: str
    places: tuple[Place, ...] = ()
    origin: str = ""

    def label(self, start: int, end: int) -> str:
        """Return the label of characters [start, end); see `label_of`."""
        return label_of(self.places, start, end)


def places_of(starts: Sequence[tuple[int, str]], length: int) -> tuple[Place, ...]:
    """Return places that each end at the next start; leave out those without text or a name.

    Args:
        starts: position of the first character, and the label, of each place, ascending.
        length: length of the text.
    """
    ends = [*(start for start, _ in starts), length][1:]
    return tuple(
        Place(start, end, shortened(label))
        for (start, label), end in zip(starts, ends, strict=True)
        if start < end and label.strip()
    )


def shortened(label: str) -> str:
    """Return a label as one line of at most `LONGEST_LABEL` characters."""
    line = " ".join(label.split())
    return line if len(line) <= LONGEST_LABEL else line[: LONGEST_LABEL - 1].rstrip() + "\u2026"


def label_of(places: Sequence[Place], start: int, end: int) -> str:
    """Return the label of characters [start, end), or the first and the last; empty without any.

    Args:
        places: the places in ascending order, without overlap.
        start: start of a passage.
        end: end of the passage; greater than `start`.
    """
    first = bisect_right(places, start, key=lambda place: place.start) - 1
    last = bisect_right(places, end - 1, key=lambda place: place.start) - 1
    chosen = dict.fromkeys(
        places[at].label for at in (first, last) if at >= 0 and places[at].end > start
    )
    return " \u2013 ".join(chosen)
