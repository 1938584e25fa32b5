"""Passages are whole words and sentences of the text, apart from each other, and not too long."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inf_llm.generation.citations import (
    LONGEST,
    SENTENCE_REACH,
    Citation,
    cite,
    decoded,
)
from inf_llm.hf.load import DEMO
from inf_llm.hf.trace import Recall
from tests.tiny import tiny_tokenizer

TALE = (
    "Call me Ishmael. Some years ago, never mind how long precisely, I had little money! "
    'Mr. Starbuck said: "It is culture." We went on.\n\nA new chapter begins here'
)


def recall(*spans: tuple[int, int], layer: int = 0, scores: Any = None) -> Recall:
    numbers = tuple(start for start, _ in spans)
    return Recall(layer, 0, None, 0, 1, 0, numbers, scores, spans)


def cited(text: str, *spans: tuple[int, int], **more: Any) -> list[str]:
    """What is shown for blocks whose tokens are characters."""
    found = cite([recall(*spans)], text, {span: span for span in spans}, **more)
    return [text[one.start : one.end] for one in sorted(found, key=lambda one: one.start)]


def at(text: str, part: str) -> tuple[int, int]:
    return text.index(part), text.index(part) + len(part)


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ("cul", 'Mr. Starbuck said: "It is culture."'),
        ("err", None),
        ("sh", "Call me Ishmael."),
        ("l. S", TALE[: TALE.index(" Mr")]),
        (". ", "Call me Ishmael."),
        ("ney! ", TALE[17 : TALE.index(" Mr")]),
        ('." W', 'Mr. Starbuck said: "It is culture." We went on.'),
        ("\n\nA n", "A new chapter begins here"),
        ("here", "A new chapter begins here"),
        ("\n\n", None),
    ],
)
def test_a_block_is_widened_to_its_sentences(part: str, shown: str | None) -> None:
    place = at(TALE, part) if part in TALE else (0, 0)
    assert cited(TALE, place) == ([shown] if shown else [])


def test_of_a_long_sentence_lines_or_words_are_shown() -> None:
    words = "word " * 300
    assert cited(words, (702, 703)) == ["word"]
    lines = ("word " * 30 + "\n") * 10
    assert cited(lines, (702, 703)) == [lines.splitlines()[702 // 151].strip()]
    assert cited("x" * 900, (502, 503)) == ["x"]
    assert cited("字" * 900, (502, 503)) == ["字"]
    assert cited("一。二三。四五", (3, 4)) == ["二三。"]


def test_neighbours_are_one_passage_and_others_are_not() -> None:
    first, second, last = at(TALE, "Ishm"), at(TALE, "lit"), at(TALE, "beg")
    assert cited(TALE, first, second) == [TALE[: TALE.index(" Mr")]]
    assert cited(TALE, first, last) == ["Call me Ishmael.", "A new chapter begins here"]
    far = "One. " + "Filler here. " * 20 + "Two."
    assert cited(far, at(far, "ne."), at(far, "Tw")) == ["One.", "Two."]


def test_a_document_and_what_surrounds_it_stay_apart() -> None:
    text = "<s>user\nIt was dark.\n\nWhat was it?<s>"
    document = at(text, "It was dark.")
    spans = at(text, "dark"), at(text, "What"), at(text, "ser")
    assert cited(text, *spans, within=document, marks=["<s>"]) == [
        "user",
        "It was dark.",
        "What was it?",
    ]
    across = at(text, ".\n\nWhat")
    assert cited(text, across, within=document) == ["It was dark."]


def test_a_passage_counts_its_blocks_together() -> None:
    one, other, far = at(TALE, "Ishm"), at(TALE, "lit"), at(TALE, "beg")
    recalls = [
        recall(one, other, far, layer=0, scores=(3.0, 2.0, 1.0)),
        recall(far, layer=3, scores=(1.0,)),
        recall(other, far, layer=2, scores=(5.0, 4.0)),
    ]
    second, best = cite(recalls, TALE, {span: span for span in (one, other, far)})
    assert (best.layers, best.count) == ((0, 2, 3), 3)
    assert best.score == pytest.approx((1 / 3 + 1 + 1 / 2) / 3)
    assert (second.layers, second.count) == ((0, 2), 2)
    assert second.score == pytest.approx((1 + 0 + 1) / 3)
    assert second.blocks == (one[0], other[0])
    assert (second.first, second.last) == (one[0], other[1])


ENDS = ["end.", '"so?"', "Mr.", "\n", "\n\n", ""]
WORDS = ["a", "word", "x" * 30]


def text_of(seed: int, rare: int, length: int) -> str:
    """Words, and ends of sentences and lines once in about `rare` of them."""
    draw = random.Random(seed)
    pools = draw.choices([WORDS, ENDS], [rare, 1], k=length)
    return " ".join(draw.choice(pool) for pool in pools)


texts = st.builds(text_of, st.integers(), st.sampled_from([3, 100]), st.integers(1, 200))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), text=texts, size=st.sampled_from([2, 16, 500]))
def test_passages_of_any_text(data: Any, text: str, size: int) -> None:
    """They are whole words, do not overlap, and stand for every block that has words."""
    blocks = [(start, min(start + size, len(text))) for start in range(0, len(text), size)]
    start = data.draw(st.integers(0, len(blocks)))
    near = blocks[start : start + 60] or blocks[:60]
    chosen = sorted(data.draw(st.sets(st.sampled_from(near), max_size=9))) if near else []
    recalls = [recall(*chosen)] if chosen else []
    found = cite(recalls, text, {span: span for span in chosen})
    shown: list[Citation] = sorted(found, key=lambda one: one.start)
    assert all(one.end <= other.start for one, other in itertools.pairwise(shown))
    blocks_shown = [block for one in shown for block in one.blocks]
    assert blocks_shown == [start for start, end in chosen if text[start:end].strip()]
    for one in shown:
        part, around = text[one.start : one.end], f" {text} "[one.start : one.end + 2]
        assert part == part.strip() != ""
        assert around[0].isspace()
        assert around[-1].isspace()
        assert len(part) <= max(LONGEST, size + 2 * SENTENCE_REACH)


@pytest.mark.parametrize("text", ["Grüße 你好 \U0001f600 und mehr. " * 9, TALE])
def test_places_without_offsets_are_those_of_the_tokens(text: str) -> None:
    tokenizer = tiny_tokenizer()  # a token a byte, so blocks end within characters
    ids = tokenizer(text)["input_ids"]
    spans = [(start, start + 16) for start in range(0, len(ids) - 16, 16)]
    back, places = decoded(tokenizer, ids, spans)
    assert back == text
    for start, end in spans:
        exact = text.encode()[start:end].decode(errors="ignore")
        assert exact in text[slice(*places[start, end])]
        assert len(text[slice(*places[start, end])]) <= len(exact) + 2


@pytest.mark.skipif(not (DEMO / "tokenizer.json").exists(), reason="no demo model here")
def test_places_agree_with_the_offsets_of_a_tokenizer() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    encoded = tokenizer(TALE, return_offsets_mapping=True, add_special_tokens=False)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    spans = [(start, start + 2) for start in range(0, len(ids) - 2, 2)]
    text, places = decoded(tokenizer, ids, spans)
    assert text == TALE
    for start, end in spans:
        assert places[start, end] == (offsets[start][0], offsets[end - 1][1])
