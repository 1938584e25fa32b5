"""Pages and headings of a document, and their positions in a prompt that contains the document."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from inf_llm.formats import DocumentText, Place

EDGE = 200
"""Number of characters at each end of a document that identify the document."""


@dataclass(frozen=True)
class Landmarks:
    """The places of a document, and the texts that identify the document in a prompt.

    Attributes:
        places: the places, with positions in the document without surrounding white space.
        length: number of characters of the document without surrounding white space.
        begins, ends: its first and its last characters, at most `EDGE` each.
    """

    places: tuple[Place, ...]
    length: int
    begins: str
    ends: str

    @classmethod
    def of(cls, document: DocumentText) -> Landmarks:
        """Return the landmarks of a document."""
        core = document.text.strip()
        lead = len(document.text) - len(document.text.lstrip())
        return cls(_moved(document.places, -lead), len(core), core[:EDGE], core[-EDGE:])

    @classmethod
    def noted(cls, note: Any) -> tuple[Landmarks, ...]:
        """Return the landmarks in the note of a memory, made by `note`; empty if it is invalid."""
        try:
            return tuple(
                cls(tuple(Place(*place) for place in row["places"]), **_rest(row)) for row in note
            )
        except (KeyError, TypeError):
            return ()

    def note(self) -> dict[str, Any]:
        """Return the landmarks as a dict for JSON."""
        return {
            **dataclasses.asdict(self),
            "places": [list(dataclasses.astuple(place)) for place in self.places],
        }

    def within(self, text: str) -> tuple[Place, ...]:
        """Return the places with positions in a text; empty if the text lacks the document."""
        start = text.find(self.begins)
        while start >= 0:
            if text.startswith(self.ends, start + self.length - len(self.ends)):
                return _moved(self.places, start)
            start = text.find(self.begins, start + 1)
        return ()


def _moved(places: Iterable[Place], by: int) -> tuple[Place, ...]:
    return tuple(
        Place(max(0, place.start + by), max(0, place.end + by), place.label) for place in places
    )


def _rest(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("length", "begins", "ends")}
