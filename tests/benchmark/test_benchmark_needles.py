"""Needle families: length met, depth met, the same sample for the same seed, answers findable."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inf_llm.errors import SettingsError
from inf_llm.needles import build, build_many, even_depths, family, score
from inf_llm.needles.base import Draft
from inf_llm.needles.haystack import Haystack, insert
from inf_llm.variants import NEEDLE

PROSE = " ".join(
    f"Sentence number {i} says little. Does {i} matter? It was {i} o'clock, and nobody came!"
    for i in range(400)
)
ONE_NEEDLE = ("passkey", "number", "kv", "lines", "niah_single_1", "niah_multikey_2", "qa")


def four_characters(text: str) -> int:
    return -(-len(text) // 4)


@pytest.mark.parametrize("name", NEEDLE.own)
@pytest.mark.parametrize("length", [2048, 9000])
def test_length_is_met_from_below(name, length):
    sample = build(name, four_characters, PROSE, length, 0.5, seed=3)
    assert sample.length == four_characters(sample.prompt)
    assert 0.95 * length <= sample.length <= length


@pytest.mark.parametrize("name", NEEDLE.own)
def test_same_seed_same_sample_and_another_seed_another(name):
    first = build(name, four_characters, PROSE, 2048, 0.3, seed=1)
    assert first == build(name, four_characters, PROSE, 2048, 0.3, seed=1)
    assert first.context != build(name, four_characters, PROSE, 2048, 0.3, seed=2).context


@pytest.mark.parametrize("name", NEEDLE.own)
def test_answers_are_in_the_context_and_score_full(name):
    sample = build(name, four_characters, PROSE, 4096, 0.7, seed=5)
    assert all(answer in sample.context for answer in sample.answers)
    assert sample.found(" " + " ".join(sample.answers))
    assert not sample.found(" nothing of the kind")


@pytest.mark.parametrize("name", ONE_NEEDLE)
@pytest.mark.parametrize("depth", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_needle_stands_at_the_depth(name, depth):
    sample = build(name, four_characters, PROSE, 8192, depth, seed=7)
    if name == "qa":  # an invented craft or place may be named twice; look for its document
        subject = sample.question.split("does ")[1].split(" live")[0].split(" make")[0]
        place = sample.context.index(subject)
    else:
        place = sample.context.index(sample.answers[0])
    assert place / len(sample.context) == pytest.approx(depth, abs=0.03)


@pytest.mark.parametrize("answers", ["red", (), None])
def test_one_text_is_not_taken_for_answers(answers):
    assert Draft("a", "b", ("red",)).answers == ("red",)
    with pytest.raises(SettingsError, match=r"give a tuple, as \('red',\)"):
        Draft("a", "b", answers)


def test_a_class_is_not_a_family(monkeypatch):
    monkeypatch.setattr(NEEDLE, "_added", {})
    NEEDLE.add("mine", type(family("passkey")))
    with pytest.raises(SettingsError, match=r"'mine' is <class .* an object of a Family is needed"):
        family("mine")


def test_passkey_reads_as_everybody_writes_it():
    sample = build("passkey", four_characters, None, 512, 0.5, seed=0)
    key = sample.answers[0]
    assert f"The pass key is {key}. Remember it. {key} is the pass key." in sample.context
    assert sample.question == "\nWhat is the pass key? The pass key is"
    assert "The grass is green." in sample.context


def test_asked_key_is_given_once_among_look_alikes():
    for seed in range(20):
        sample = build("niah_multikey_2", four_characters, None, 8192, 0.5, seed=seed)
        key = sample.question.split(" of ")[1].split(" does")[0]
        assert sample.context.count(f" {key} ") == 1


def test_multiquery_asks_for_every_key():
    sample = build("niah_multiquery", four_characters, PROSE, 4096, 0.1, seed=2)
    assert len(sample.answers) == 4
    assert sample.score(" ".join(sample.answers[:2])) == 0.5


def test_frequent_words_are_the_most_frequent():
    sample = build("fwe", four_characters, None, 4096, 0.5, seed=2)
    words = sample.context.split(" ")
    fewest = min(words.count(answer) for answer in sample.answers)
    others = {word for word in words if word.isalpha() and len(word) == 6} - set(sample.answers)
    assert fewest > max(words.count(word) for word in others)


def test_variable_chain_is_in_order():
    sample = build("vt", four_characters, None, 4096, 0.2, seed=2)
    places = [sample.context.index(f"VAR {name} =") for name in sample.answers]
    assert places == sorted(places)


def test_build_many_gives_every_depth_its_own_needle():
    samples = build_many("passkey", four_characters, PROSE, 1024, even_depths(3), seed=0)
    assert [sample.depth for sample in samples] == [0.0, 0.5, 1.0]
    assert len({sample.answers for sample in samples}) == 3


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: family("passkye"), "did you mean 'passkey'"),
        (lambda: build("passkey", four_characters, length=5), "at least"),
        (lambda: build("passkey", four_characters, depth=1.5), "from 0 to 1"),
        (lambda: build("passkey", 7), "encode()"),
        (lambda: build("passkey", four_characters, " \n"), "empty"),
        (lambda: build("niah_single_2", four_characters), "give a haystack"),
        (lambda: score("has_wrd", "", ["a"]), "did you mean 'has_word'"),
    ],
)
def test_errors_say_what_to_do(call, says):
    with pytest.raises(SettingsError, match=says.replace("(", r"\(").replace(")", r"\)")):
        call()


@settings(max_examples=30, deadline=None)
@given(st.integers(300, 6000), st.floats(0, 1), st.integers(0, 10**6))
def test_passkey_of_any_length_depth_and_seed(length, depth, seed):
    sample = build("passkey", four_characters, PROSE, length, depth, seed)
    assert length - 8 <= sample.length <= length
    assert sample.context.count(f"The pass key is {sample.answers[0]}.") == 1


def test_haystack_is_read_in_a_circle_and_nothing_is_lost():
    stack = Haystack("One two.\nThree\n\nfour.")
    assert stack.words == ["One ", "two. ", "Three\n\n", "four. "]
    assert "".join(stack.take(2, 6)) == "Three\n\nfour. One two. Three\n\nfour. "
    assert insert(stack.words, [(0.5, "X.")]) == "One two. X. Three\n\nfour. "
    assert insert(stack.words, [(0.0, "X."), (1.0, "Y.")]) == "X. One two. Three\n\nfour. Y. "
