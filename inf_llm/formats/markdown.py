"""Headings of a Markdown text. The text itself is not changed."""

from __future__ import annotations

import re
from pathlib import Path

from inf_llm.formats.places import Place, places_of

_SUFFIXES = {".md", ".markdown", ".mdown", ".mkd"}
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*")


def is_markdown(name: str) -> bool:
    """Whether a file is Markdown, by its name alone."""
    return Path(name).suffix.lower() in _SUFFIXES


def headings(text: str) -> tuple[Place, ...]:
    """Return the parts that begin with `#` headings. Lines within code fences do not count."""
    starts, at, fence = [], 0, ""
    for line in text.splitlines(keepends=True):
        bare = line.rstrip("\r\n")
        found = _FENCE.fullmatch(bare)
        if fence:
            closes = found is not None and found[1].startswith(fence) and not found[2].strip()
            fence = "" if closes else fence
        elif found:
            fence = found[1]
        elif heading := _HEADING.fullmatch(bare):
            starts.append((at, heading[1]))
        at += len(line)
    return places_of(starts, len(text))
