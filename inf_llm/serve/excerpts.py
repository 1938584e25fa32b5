"""Characters of an uploaded text, for clients that show a passage in its context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inf_llm.serve.documents import Document
from inf_llm.serve.errors import ApiError, bad_value

LONGEST_EXCERPT = 1_000_000
"""Most characters of one response."""


def excerpt(document: Document, query: Mapping[str, str]) -> dict[str, Any]:
    """Return characters [start, end) of a text, with its pages or headings there, as JSON.

    Args:
        document: the document with the text.
        query: the query parameters: `start`, 0 by default, and `end`, by default the end of the
            text or of the longest excerpt.

    Raises:
        ApiError: there is another query parameter, or the range is not within the text.
    """
    for name in query:
        if name not in ("start", "end"):
            raise ApiError(
                400,
                f"{name[:60]!r} is not a parameter of this request; accepted: start, end",
                "unknown_parameter",
                name[:60],
            )
    length = len(document.text)
    start = _place("start", query, 0, length)
    end = _place("end", query, min(length, start + LONGEST_EXCERPT), length)
    if not 0 <= end - start <= LONGEST_EXCERPT:
        raise bad_value(
            "end",
            f"end must be from start to {LONGEST_EXCERPT} behind it; start is {start}, end {end}",
        )
    return {
        "id": document.id,
        "object": "document.text",
        "start": start,
        "end": end,
        "characters": length,
        "text": document.text[start:end],
        "places": [
            {"start": first, "end": last, "label": label}
            for first, last, label in document.places
            if first < end and last > start
        ],
    }


def _place(name: str, query: Mapping[str, str], default: int, length: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    # more than 18 digits cannot be a valid length, and a huge number is slow to parse
    if len(text) > 18 or not (text.isascii() and text.isdigit()) or int(text) > length:
        raise bad_value(
            name, f"{name} must be a whole number from 0 to {length}, the characters of the text"
        )
    return int(text)
