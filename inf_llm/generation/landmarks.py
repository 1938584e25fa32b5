"""Pages and headings of a document, found again in a prompt that the document is a part of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from inf_llm.formats import DocumentText, Place

EDGE = 200
"""Characters at each end of a document that it is known by."""


@dataclass(frozen=True)
class Landmarks:
    """Where the places of a document are in it, and what it is known by.

    Attributes:
        places: by characters from the first of the document that is no white space.
        length: characters from there to the last that is none.
        begins, ends: the first and the last of these, `EDGE` at most.
    """

    places: tuple[Place, ...]
    length: int
    begins: str
    ends: str

    @classmethod
    def of(cls, document: DocumentText) -> Landmarks:
        """Those of a document."""
        core = document.text.strip()
        lead = len(document.text) - len(document.text.lstrip())
        return cls(_moved(document.places, -lead), len(core), core[:EDGE], core[-EDGE:])

    @classmethod
    def noted(cls, note: Any) -> tuple[Landmarks, ...]:
        """Those of the documents in a memory; see `note`. None where they cannot be read."""
        try:
            return tuple(
                cls(tuple(Place(*place) for place in row["places"]), **_rest(row)) for row in note
            )
        except (KeyError, TypeError):
            return ()

    def note(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            **dataclasses.asdict(self),
            "places": [list(dataclasses.astuple(place)) for place in self.places],
        }

    def within(self, text: str) -> tuple[Place, ...]:
        """The places by characters of a text; none where not all of the document is in it."""
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
