"""Decoding of bytes as Unicode, or in an older encoding that is detected from the letters."""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterable, Iterator

from inf_llm.errors import MissingExtraError, TextError
from inf_llm.formats.magic import BINARY, TEXTUAL, guess, refuse, wide_guess
from inf_llm.optional import need

_MARKS = (  # UTF-32 first: its mark begins with the mark of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN = "windows-1252", "windows-1250", "windows-1254", "iso8859-2"
_CYRILLIC = "windows-1251", "koi8-r", "koi8-u", "cp866", "iso8859-5"
_ASIAN = "cp932", "euc_jis_2004", "gb18030", "big5hkscs", "cp949"
_CHOICE = [*_WESTERN, *_CYRILLIC, *_ASIAN, "windows-1253", "windows-1255", "windows-1256"]
"""Encodings that were common before Unicode. Among all encodings the detector would find rare ones
in their place."""
_SAMPLE = 1 << 16
"""Most bytes that are given to the detector of encodings."""
_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE
)
_DECLARED_WITHIN = 2048
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")
_MIN_CONFIDENCE, _MIN_BYTES = 0.02, 16
"""Least confidence of the detector, which is lower for noise, and least number of bytes, since the
detector cannot be sure about a single word."""
_MOSTLY = 0.7
"""Share of ASCII above which bytes are not noise, though the other letters may be too few for a
confident detection."""
_FAULTS = 0.1
"""Share of invalid letters beyond ASCII up to which a text is UTF-8 with faults, and in no other
encoding."""


def decoded(name: str, data: bytes) -> tuple[str, str]:
    """Return the text of `data` and the name of its encoding, which is empty for UTF-8.

    Raises:
        TextError: `data` is not text, or is UTF-8 with faults; the message says what it may be.
    """
    marked = next((code for mark, code in _MARKS if data.startswith(mark)), "")
    try:
        text = data.decode(marked or "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        refuse(name, data, TEXTUAL + BINARY)
        where = f"{name}: is not text in {(marked or 'utf-8').upper()} (byte {error.start:,})"
        found = None if marked else _first(data, _candidates(data, error.start, where))
        if found is None:
            raise TextError(where + guess(data)) from None
        return found
    plain = text, marked.upper()
    return plain if marked or "\0" not in text else _first(data, [wide_guess(data)]) or plain


def _first(data: bytes, encodings: Iterable[str]) -> tuple[str, str] | None:
    """Return the text, and the first encoding that decodes it without control characters."""
    for encoding in encodings:
        with contextlib.suppress(LookupError, ValueError):
            text = data.decode(encoding)
            if not _CONTROL.search(text):
                return text.removeprefix("\ufeff"), codecs.lookup(encoding).name.upper()
    return None


def _candidates(data: bytes, wrong: int, where: str) -> Iterator[str]:
    """Yield encodings that the bytes may have, the likeliest first.

    Args:
        data: the bytes.
        wrong: offset of the first byte that is not UTF-8.
        where: beginning of an error message that names this byte.

    Raises:
        TextError: the package that detects older encodings is not installed.
    """
    yield wide_guess(data)
    if 0 in data or _is_faulty(data) or len(data) < _MIN_BYTES:
        return
    if declared := _DECLARED.search(data[:_DECLARED_WITHIN]):
        yield declared[1].decode("ascii", "replace")
    try:
        finder = need("chardet", "finding its encoding", "documents")
    except MissingExtraError as error:
        raise TextError(f"{where}{guess(data)}; {error}") from None
    sample = _sample(data, wrong)
    mostly_ascii = sum(byte < 128 for byte in sample) > _MOSTLY * len(sample)
    for found in finder.detect_all(sample, include_encodings=_CHOICE):
        if mostly_ascii or found["confidence"] >= _MIN_CONFIDENCE:
            yield str(found["encoding"])


def _sample(data: bytes, wrong: int) -> bytes:
    """Return whole words from the one with the wrong byte on, so that no letter is cut."""
    first = 1 + max(data.rfind(b"\n", 0, wrong), data.rfind(b" ", 0, wrong))
    sample = data[first : first + _SAMPLE]
    if first + len(sample) == len(data):
        return sample
    return sample[: 1 + max(sample.rfind(b"\n"), sample.rfind(b" "))] or sample


def _is_faulty(data: bytes) -> bool:
    """Whether most letters beyond ASCII are valid UTF-8, which another encoding would garble."""
    text = data.decode("utf-8", errors="replace")
    wrong = text.count("\ufffd")
    return wrong <= _FAULTS * sum(not character.isascii() for character in text)
