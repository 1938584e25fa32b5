"""The places of a document: ascending, without overlap, to the end of the text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inf_llm.formats.places import (
    LONGEST_LABEL,
    DocumentText,
    Place,
    label_of,
    places_of,
    shortened,
)


@given(st.lists(st.integers(0, 50), unique=True).map(sorted), st.integers(51, 60))
def test_places_reach_to_the_next_and_the_end(starts: list[int], length: int) -> None:
    places = places_of([(start, f"at {start}") for start in starts], length)
    assert [place.start for place in places] == starts
    assert [place.end for place in places] == [*starts[1:], length][: len(starts)]
    for character in range(length):
        within = [place.label for place in places if place.start <= character < place.end]
        assert label_of(places, character, character + 1) == "".join(within)


def test_a_passage_over_several_places_names_the_first_and_the_last() -> None:
    document = DocumentText("x" * 40, places_of([(10, "One"), (20, "Two"), (30, "Three")], 40))
    assert document.label(0, 5) == ""
    assert document.label(12, 20) == "One"
    assert document.label(12, 21) == "One \u2013 Two"
    assert document.label(12, 40) == "One \u2013 Three"
    assert document.label(5, 12) == "One"
    assert DocumentText("x").label(0, 1) == ""


def test_nothing_is_named_between_places() -> None:
    places = [Place(0, 5, "One"), Place(10, 15, "Two")]
    assert label_of(places, 6, 9) == ""
    assert label_of(places, 3, 9) == "One"


def test_what_has_no_name_or_no_text_is_left_out() -> None:
    assert places_of([(0, "One"), (5, " "), (9, "Three"), (12, "Four")], 12) == (
        Place(0, 5, "One"),
        Place(9, 12, "Three"),
    )


def test_a_label_is_one_short_line() -> None:
    assert shortened(" A\n heading ") == "A heading"
    assert len(shortened("long " * 90)) <= LONGEST_LABEL
