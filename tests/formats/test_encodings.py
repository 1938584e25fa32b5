"""Bytes as text: each encoding is found, and what is no text or is broken is not."""

from __future__ import annotations

import random

import pytest

from inf_llm.errors import TextError
from inf_llm.formats.encodings import decoded
from tests.documents import with_documents

RUSSIAN = "Все счастливые семьи похожи друг на друга. Всё смешалось в доме Облонских.\n"  # noqa: RUF001
FRENCH = "Eh bien, mon prince, Gênes et Lucques ne sont plus que des apanages, voilà. «Être»\n"
GERMAN = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.\n"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"
CHINESE = "道可道，非常道。名可名，非常名。无名天地之始，有名万物之母。\n"  # noqa: RUF001
POLISH = "Wszystkie szczęśliwe rodziny są do siebie podobne, zażółć gęślą jaźń.\n"
KOREAN = "모든 행복한 가정은 서로 닮았고, 불행한 가정은 저마다의 이유로 불행하다.\n"
OLD = [
    *[(RUSSIAN, code) for code in ("koi8_r", "cp1251", "iso8859_5", "cp866")],
    *[(FRENCH, code) for code in ("cp1252", "latin_1")],
    *[(GERMAN, code) for code in ("cp1252", "latin_1")],
    *[(JAPANESE, code) for code in ("shift_jis", "euc_jp")],
    *[(CHINESE, code) for code in ("gb18030", "gbk")],
    *[(POLISH, code) for code in ("cp1250", "iso8859_2")],
    (KOREAN, "euc_kr"),
]


@with_documents
@pytest.mark.parametrize(("text", "code"), OLD, ids=[f"{text[:5]} {code}" for text, code in OLD])
@pytest.mark.parametrize("times", [3, 9000])
def test_older_encodings_are_found(text: str, code: str, times: int) -> None:
    found, encoding = decoded("it", (text * times).encode(code))
    assert found == text * times
    assert encoding


@pytest.mark.parametrize("text", [FRENCH, RUSSIAN, "plain"], ids="frp")
@pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_found(text: str, code: str) -> None:
    data = ("In plain letters: " + text).encode(code)
    assert decoded("it", data) == (
        "In plain letters: " + text,
        code.upper(),
    )


@with_documents
def test_what_a_page_declares_comes_first() -> None:
    page = '<html><meta charset="iso-8859-15"><p>100 €</html>'
    assert decoded("it", page.encode("iso-8859-15")) == (page, "ISO8859-15")
    page = page.replace("iso-8859-15", "no-such")
    assert decoded("it", page.encode("cp1252"))[0] == page


@pytest.mark.parametrize("text", [RUSSIAN, FRENCH * 9, JAPANESE], ids="rfj")
def test_utf_8_with_a_fault_is_no_other_encoding(text: str) -> None:
    data = text.encode() + b"\xff" + text.encode()
    with pytest.raises(TextError, match=r"not text in UTF-8 \(byte"):
        decoded("it", data)


@with_documents
@pytest.mark.parametrize("length", [2, 20, 60, 300, 4000])
@pytest.mark.parametrize("least", [1, 32])  # with control characters, and without
def test_noise_is_no_text(length: int, least: int) -> None:
    chance = random.Random(length)
    noise = bytes([*(chance.randrange(least, 256) for _ in range(length)), 0xFF])
    with pytest.raises(TextError, match="not text in UTF-8"):
        decoded("it", noise)


def test_the_extra_is_named_where_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "chardet", None)
    with pytest.raises(TextError, match=r"iconv .* pip install 'inf-llm\[documents\]'"):
        decoded("it", FRENCH.encode("cp1252"))
