"""Bytes as text: Unicode, and the encodings before it, which are found by their letters."""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterable, Iterator

from inf_llm.errors import MissingExtraError, TextError
from inf_llm.formats.magic import BINARY, TEXTUAL, guess, refuse, wide_guess
from inf_llm.optional import need

_MARKS = (  # UTF-32 first, whose mark begins as that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN = "windows-1252", "windows-1250", "windows-1254", "iso8859-2"
_CYRILLIC = "windows-1251", "koi8-r", "koi8-u", "cp866", "iso8859-5"
_ASIAN = "cp932", "euc_jis_2004", "gb18030", "big5hkscs", "cp949"
_CHOICE = [*_WESTERN, *_CYRILLIC, *_ASIAN, "windows-1253", "windows-1255", "windows-1256"]
"""What was common before Unicode. Among all encodings the finder would take rare ones for these."""
_SAMPLE = 1 << 16
"""Bytes that an encoding is looked for in."""
_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE
)
_DECLARED_WITHIN = 2048
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")
_LEAST_CONFIDENCE, _LEAST_BYTES = 0.02, 16
"""Of noise the finder is less sure than that; of a word it cannot be sure at all."""
_MOSTLY = 0.7
"""Share of ASCII above which bytes are no noise, but may have too few letters to be sure."""
_FAULTS = 0.1
"""Share of letters that are not UTF-8 below which a text is UTF-8 with faults, nothing else."""


def decoded(name: str, data: bytes) -> tuple[str, str]:
    """The text of bytes, and the name of its encoding; an empty one for UTF-8.

    Raises:
        TextError: they are no text, or UTF-8 with faults; the message says what they are.
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
    """The text in the first encoding that all of it is in without control characters."""
    for encoding in encodings:
        with contextlib.suppress(LookupError, ValueError):
            text = data.decode(encoding)
            if not _CONTROL.search(text):
                return text.removeprefix("\ufeff"), codecs.lookup(encoding).name.upper()
    return None


def _candidates(data: bytes, wrong: int, where: str) -> Iterator[str]:
    """Encodings that the bytes may have, the likeliest first.

    Args:
        data: the bytes.
        wrong: the first that is not UTF-8.
        where: the beginning of a message about it.

    Raises:
        TextError: the package that finds older ones is not installed.
    """
    yield wide_guess(data)
    if 0 in data or _is_faulty(data) or len(data) < _LEAST_BYTES:
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
        if mostly_ascii or found["confidence"] >= _LEAST_CONFIDENCE:
            yield str(found["encoding"])


def _sample(data: bytes, wrong: int) -> bytes:
    """The words from those with the wrong byte on; they begin and end with whole letters."""
    first = 1 + max(data.rfind(b"\n", 0, wrong), data.rfind(b" ", 0, wrong))
    sample = data[first : first + _SAMPLE]
    if first + len(sample) == len(data):
        return sample
    return sample[: 1 + max(sample.rfind(b"\n"), sample.rfind(b" "))] or sample


def _is_faulty(data: bytes) -> bool:
    """Whether most letters beyond ASCII are right UTF-8: another encoding would garble those."""
    text = data.decode("utf-8", errors="replace")
    wrong = text.count("\ufffd")
    return wrong <= _FAULTS * sum(not character.isascii() for character in text)
