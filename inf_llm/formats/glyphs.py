"""Text taken from the glyphs of a page: separate accents, and the order of Arabic and Hebrew."""

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
"""Accents as separate characters, and the combining accents for the letter before them."""
_GRAVE = {"`": "\u0300"}
"""The backtick, which is frequent in code: an accent only in a text that has the other accents."""
_DOTLESS = {"\u0131": "i", "\u0237": "j"}
_ALONE = re.compile(f"[{''.join(_ACCENTS)}]")
_BEFORE_LETTER = re.compile(f"([{''.join(_ACCENTS | _GRAVE)}])([A-Za-z\u0131\u0237])")
_ALMOST_ALL = 0.9
"""Share of the accents that must stand before a matching letter for the text to be composed."""

_RIGHT_TO_LEFT = re.compile("[\u0591-\u07bf]{2,}")
_NEVER_FIRST = re.compile("[\u0629\u05da\u05dd\u05df\u05e3\u05e5\u064b-\u0655\u0670\u0591-\u05c7]")
"""Letters that occur only at the end of a word, and marks that follow their letter."""
_FEW_WORDS, _MANY = 20, 0.1
"""Number of words that a judgement needs, and share of words in the wrong order above which the
text is in the wrong order."""


def composed(text: str) -> str:
    """Join accents and letters of a text, if almost all its accents stand before their letters.

    Fonts of older TeX print a letter with an accent as two characters, the accent first.
    """
    alone = len(_ALONE.findall(text))
    met = sum(
        match[1] in _ACCENTS and len(_letter(match)) == 1 for match in _BEFORE_LETTER.finditer(text)
    )
    if not alone or met < _ALMOST_ALL * alone:
        return text
    return _BEFORE_LETTER.sub(_letter, text)


def _letter(match: re.Match[str]) -> str:
    """Return the letter with its accent, or both unchanged if Unicode has no such letter."""
    accent, letter = match[1], _DOTLESS.get(match[2], match[2])
    whole = unicodedata.normalize("NFC", letter + (_ACCENTS | _GRAVE)[accent])
    return whole if len(whole) == 1 else match[0]


def out_of_order(text: str) -> bool:
    """Whether letters of Arabic or Hebrew are not in reading order."""
    words = _RIGHT_TO_LEFT.findall(text)
    wrong = sum(_NEVER_FIRST.match(word) is not None for word in words)
    return len(words) >= _FEW_WORDS and wrong > _MANY * len(words)
