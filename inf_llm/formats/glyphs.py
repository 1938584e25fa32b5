"""Text as the glyphs of a page give it: accents apart from their letters, and Arabic or Hebrew in
the order of the page."""

from __future__ import annotations

import re
import unicodedata

_ACCENTS = {
    "\u00b4": "\u0301",
    "\u00a8": "\u0308",
    "\u02dd": "\u030b",
    "\u02c7": "\u030c",
    "\u02d8": "\u0306",
    "\u02d9": "\u0307",
    "\u02da": "\u030a",
    "\u02dc": "\u0303",
    "\u02c6": "\u0302",
    "\u00b8": "\u0327",
}
"""Accents that stand alone, and those that belong to the letter before them."""
_GRAVE = {"`": "\u0300"}
"""Code has it too: it is an accent only where the others are."""
_DOTLESS = {"\u0131": "i", "\u0237": "j"}
_ALONE = re.compile(f"[{''.join(_ACCENTS)}]")
_BEFORE_LETTER = re.compile(f"([{''.join(_ACCENTS | _GRAVE)}])([A-Za-z\u0131\u0237])")
_ALMOST_ALL = 0.9
"""Share of accents before letters that they go with from which on a text is set so."""

_RIGHT_TO_LEFT = re.compile("[\u0591-\u07bf]{2,}")
_NEVER_FIRST = re.compile("[\u0629\u05da\u05dd\u05df\u05e3\u05e5\u064b-\u0655\u0670\u0591-\u05c7]")
"""Letters that only end words, and marks that follow the letter they belong to."""
_FEW_WORDS, _MANY = 20, 0.1
"""Words without which nothing is said, and the share of wrong ones from which on it is."""


def composed(text: str) -> str:
    """The text with whole letters, where almost all of its accents stand before theirs.

    Fonts of older TeX print an accent and a letter for each letter with an accent.
    """
    alone = len(_ALONE.findall(text))
    met = sum(
        found[1] in _ACCENTS and len(_letter(found)) == 1 for found in _BEFORE_LETTER.finditer(text)
    )
    if not alone or met < _ALMOST_ALL * alone:
        return text
    return _BEFORE_LETTER.sub(_letter, text)


def _letter(found: re.Match[str]) -> str:
    """The letter with its accent; both as they are where there is none."""
    accent, letter = found[1], _DOTLESS.get(found[2], found[2])
    whole = unicodedata.normalize("NFC", letter + (_ACCENTS | _GRAVE)[accent])
    return whole if len(whole) == 1 else found[0]


def out_of_order(text: str) -> bool:
    """Whether letters of Arabic or Hebrew stand in another order than they are read in."""
    words = _RIGHT_TO_LEFT.findall(text)
    wrong = sum(_NEVER_FIRST.match(word) is not None for word in words)
    return len(words) >= _FEW_WORDS and wrong > _MANY * len(words)
