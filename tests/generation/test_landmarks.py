"""Pages and headings are found again in a prompt, for as long as the document is whole there."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.formats import DocumentText, Place
from inf_llm.generation import Landmarks
from inf_llm.generation.landmarks import EDGE

TEXT = " \n" + "".join(f"Sentence {number}. " for number in range(90)) + "\n"
DOCUMENT = DocumentText(TEXT, (Place(0, 500, "page 1"), Place(500, len(TEXT), "page 2")))


@given(st.text("Sent. 12"), st.text("Sent. 12"))
def test_places_in_a_prompt_hold_what_they_hold_in_the_document(before: str, after: str) -> None:
    prompt = f"{before}\n{TEXT.strip()}{after}"
    first, second = Landmarks.of(DOCUMENT).within(prompt)
    assert prompt[first.start : first.end] == TEXT[:500].lstrip()
    assert prompt[second.start :].startswith(TEXT[500:].rstrip())


def test_a_prompt_with_less_of_it_names_nothing() -> None:
    landmarks, core = Landmarks.of(DOCUMENT), TEXT.strip()
    assert landmarks.within(core)
    assert landmarks.within(core[:600] + core[700:]) == ()
    assert landmarks.within("something else") == ()


def test_the_whole_one_is_found_behind_a_part_of_it() -> None:
    core = TEXT.strip()
    first, _ = Landmarks.of(DOCUMENT).within(core[: EDGE + 50] + core)
    assert first.start == EDGE + 50


def test_a_note_gives_them_back() -> None:
    landmarks = Landmarks.of(DOCUMENT)
    assert Landmarks.noted(json.loads(json.dumps([landmarks.note()]))) == (landmarks,)
    assert Landmarks.noted([]) == ()


@pytest.mark.parametrize("note", [None, 3, [3], [{}], [{"places": [3]}], [{"places": [[1, 2]]}]])
def test_a_note_that_cannot_be_read_gives_none(note: object) -> None:
    assert Landmarks.noted(note) == ()
