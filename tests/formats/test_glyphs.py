"""What the glyphs of a page leave to be mended, or to be said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.formats.glyphs import composed, out_of_order

HUNGARIAN = (
    "az al\u00b4abbi sz\u00a8oveges \u00b4allom\u00b4any el\u02ddo\u00b4all\u00b4\u0131t\u00b4as"
)
ARABIC = "\u062f\u062c\u0627\u062c\u0629 \u0643\u0628\u064a\u0631\u0629 \u0647\u0646\u0627 "


def test_accents_join_their_letters() -> None:
    assert (
        composed(HUNGARIAN)
        == "az al\u00e1bbi sz\u00f6veges \u00e1llom\u00e1ny el\u0151\u00e1ll\u00edt\u00e1s"
    )
    assert composed("fran\u00b8cais, d\u00b4ej`a, `x") == "fran\u00e7ais, d\u00e9j\u00e0, `x"


@pytest.mark.parametrize(
    "text",
    ["it says \u00b4quoted\u00b4 and \u00b4again\u00b4", "`code` and `echo`", "\u02c6 \u02c6"],
)
def test_accents_of_another_use_stay(text: str) -> None:
    assert composed(text) == text


@given(
    st.text(
        st.characters(
            exclude_characters="\u00b4\u00a8\u02dd\u02c7\u02d8\u02d9\u02da\u02dc\u02c6\u00b8"
        )
    )
)
def test_a_text_without_such_accents_stays(text: str) -> None:
    assert composed(text) == text


def test_letters_in_the_order_of_the_page() -> None:
    assert not out_of_order(ARABIC * 10)
    assert out_of_order((ARABIC * 10)[::-1])
    assert not out_of_order("left to right " * 50)
    hebrew = "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd " * 10
    assert not out_of_order(hebrew)
    assert out_of_order(hebrew[::-1])
