"""The text of a document, and where its pages or headings are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST_LABEL = 120
"""Characters past which a heading is cut."""


@dataclass(frozen=True, order=True)
class Place:
    """A part of a text that has a name.

    Attributes:
        start, end: its characters [start, end).
        label: "page 3", or a heading.
    """

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class DocumentText:
    """What was read from a file.

    Attributes:
        text: all of it.
        places: pages, or parts that begin with a heading; ascending, each to the start of the
            next and the last to the end of the text. What stands before the first heading is in
            none.
        origin: what the text was made of, as "a PDF of 36 pages"; empty for text in UTF-8.
    """

    text: str
    places: tuple[Place, ...] = ()
    origin: str = ""

    def label(self, start: int, end: int) -> str:
        """Where characters [start, end) are; see `label_of`."""
        return label_of(self.places, start, end)


def places_of(starts: Sequence[tuple[int, str]], length: int) -> tuple[Place, ...]:
    """Places that each reach to the next; those without a character or a name are left out.

    Args:
        starts: first character and label of each, ascending.
        length: of the text.
    """
    ends = [*(start for start, _ in starts), length][1:]
    return tuple(
        Place(start, end, shortened(label))
        for (start, label), end in zip(starts, ends, strict=True)
        if start < end and label.strip()
    )


def shortened(label: str) -> str:
    """A label in one line of at most `LONGEST_LABEL` characters."""
    line = " ".join(label.split())
    return line if len(line) <= LONGEST_LABEL else line[: LONGEST_LABEL - 1].rstrip() + "\u2026"


def label_of(places: Sequence[Place], start: int, end: int) -> str:
    """The place of characters [start, end), or the first and the last; empty where there is none.

    Args:
        places: ascending, without overlap.
        start: of a passage.
        end: of it; more than `start`.
    """
    first = bisect_right(places, start, key=lambda place: place.start) - 1
    last = bisect_right(places, end - 1, key=lambda place: place.start) - 1
    chosen = dict.fromkeys(
        places[at].label for at in (first, last) if at >= 0 and places[at].end > start
    )
    return " \u2013 ".join(chosen)
