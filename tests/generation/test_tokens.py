"""A text or its ids in any form are read alike; all else is refused by what it is."""

from __future__ import annotations

import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inf_llm.errors import InfLLMError, TextError
from inf_llm.generation import Session, encode, fit, measure_perplexity
from inf_llm.generation.tokens import vocabulary

TEXT = "The quick brown fox jumps. " * 4

Form = Callable[[Any, list[int]], Any]

READ: dict[str, Form] = {
    "text": lambda tokenizer, ids: TEXT,
    "list": lambda tokenizer, ids: ids,
    "tuple": lambda tokenizer, ids: tuple(ids),
    "iterator": lambda tokenizer, ids: iter(ids),
    "list in a list": lambda tokenizer, ids: [ids],
    "tensor (n,)": lambda tokenizer, ids: torch.tensor(ids),
    "tensor (1, n)": lambda tokenizer, ids: torch.tensor([ids], dtype=torch.int32),
    "tensor in a list": lambda tokenizer, ids: [torch.tensor(ids)],
    "list of tensors": lambda tokenizer, ids: list(torch.tensor(ids)),
    "array (n,)": lambda tokenizer, ids: np.array(ids, dtype=np.uint16),
    "array (1, n)": lambda tokenizer, ids: np.array([ids]),
    "list of numpy's numbers": lambda tokenizer, ids: list(np.array(ids)),
    "array of the standard library": lambda tokenizer, ids: array.array("i", ids),
    "what a tokenizer gives": lambda tokenizer, ids: tokenizer(TEXT),
    "that as tensors": lambda tokenizer, ids: tokenizer(TEXT, return_tensors="pt"),
    "that of one text": lambda tokenizer, ids: tokenizer([TEXT]),
    "its ids": lambda tokenizer, ids: tokenizer(TEXT, return_tensors="np").input_ids,
    "a plain dictionary": lambda tokenizer, ids: {"input_ids": ids},
}


@pytest.mark.parametrize("form", READ)
def test_is_read(memory_model: Any, tokenizer: Any, form: str) -> None:
    ids = encode(tokenizer, TEXT)
    session = Session(memory_model, tokenizer)
    session.read(READ[form](tokenizer, ids))
    assert session.ids == ids
    assert {type(token) for token in session.ids} == {int}
    assert session.fed > 0


@pytest.mark.parametrize("form", READ)
def test_is_asked(memory_model: Any, tokenizer: Any, form: str) -> None:
    ids = encode(tokenizer, TEXT)
    answer = Session(memory_model, tokenizer).ask(READ[form](tokenizer, ids), max_new_tokens=1)
    assert answer.prompt_tokens == len(ids)


@pytest.mark.parametrize("nothing", ["", [], (), torch.tensor([]), {"input_ids": []}], ids=repr)
def test_nothing_is_read(memory_model: Any, tokenizer: Any, nothing: Any) -> None:
    session = Session(memory_model, tokenizer)
    session.read(nothing)
    assert session.ids == []


REFUSED: dict[str, tuple[Any, str]] = {
    "bytes": (b"The fox", r"cannot read bytes: decode them first.*a text is accepted, or"),
    "bytes of another kind": (bytearray(b"x"), "cannot read bytearray: decode"),
    "None": (None, r"cannot read NoneType \(None\)"),
    "a number": (5, r"cannot read int \(5\)"),
    "a tensor of one number": (torch.tensor(5), "cannot read Tensor"),
    "floats": ([5, 6.5], "a list with 6.5 at place 1"),
    "whole floats": (torch.tensor([5.0]), "a Tensor with 5.0 at place 0"),
    "bools": ([True, False], "a list with True at place 0"),
    "a mask": (torch.ones(4, dtype=torch.bool), "a Tensor with True at place 0"),
    "two texts": (["one", "two"], "a list with 'one' at place 0"),
    "one text in a list": (["one"], "a list with 'one' at place 0"),
    "two rows": ([[5, 6], [7, 8]], "2 rows: read one text at a time"),
    "a tensor of two rows": (torch.ones(2, 3, dtype=torch.int64), "2 rows"),
    "rows below": ([5, [6]], r"a list with \[6\] at place 1"),
    "a set": ({5, 6}, "cannot read set"),
    "a dictionary": ({"text": "x"}, "a dict without 'input_ids'"),
    "a path": (Path("book.txt"), r"cannot read \w*Path \(book.txt\)"),
    "padding": ({"input_ids": [5, 6], "attention_mask": [0, 1]}, "a text with padding"),
    "half a character": ("Hello \ud83d", r"character 6 is half of a surrogate pair"),
    "a zero byte": ("Hello \0", "character 6 is a zero byte"),
    "past the last": ([5, 10**6], r"token id 1000000 \(at place 1\) does not exist.* 0 to \d+"),
    "below the first": (torch.tensor([[5, 6, -100]]), r"token id -100 \(at place 2\)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_is_refused_by_what_it_is(memory_model: Any, tokenizer: Any, what: str) -> None:
    given, message = REFUSED[what]
    session = Session(memory_model, tokenizer)
    session.read(TEXT)
    before = session.fed, list(session.ids)
    for door in (session.read, lambda given: session.ask(given, max_new_tokens=2)):
        with pytest.raises(TextError, match=message) as refusal:
            door(given)
        assert "\n" not in str(refusal.value)
    assert (session.fed, session.ids) == before


def test_a_tokenizer_of_another_model_is_named(memory_model: Any, tokenizer: Any) -> None:
    known = vocabulary(memory_model)
    session = Session(memory_model, _Larger(tokenizer, known))
    with pytest.raises(TextError, match=rf"token id {known}, .* 0 to {known - 1} only: use the to"):
        session.read("any text")
    assert session.ids == []


class _Larger:
    """A tokenizer with one token more than the model."""

    def __init__(self, tokenizer: Any, token: int) -> None:
        self._tokenizer, self._token = tokenizer, token

    def __call__(self, text: str, **how: Any) -> Any:
        encoded = self._tokenizer(text, **how)
        return {"input_ids": [*encoded["input_ids"], self._token]}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@pytest.mark.parametrize("text", [b"x", None, 5, ["x"], "\ud83d"], ids=repr)
def test_only_text_is_encoded(tokenizer: Any, text: Any) -> None:
    with pytest.raises(TextError, match="the text"):
        encode(tokenizer, text)


def test_perplexity_reads_the_same_forms(bare: Any, tokenizer: Any) -> None:
    wanted = measure_perplexity(bare, encode(tokenizer, TEXT)).whole
    assert measure_perplexity(bare, tokenizer(TEXT, return_tensors="pt")).whole == wanted
    for given, message in (
        ([5, 10**6], "does not exist"),
        (torch.ones(2, 9, dtype=torch.int64), "2 rows"),
        (TEXT, "a str with 'T'"),
    ):
        with pytest.raises(TextError, match=message):
            measure_perplexity(bare, given)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda model, tokenizer: Session("a/path", tokenizer),
        lambda model, tokenizer: Session(tokenizer, model),
        lambda model, tokenizer: Session(model, None),
        lambda model, tokenizer: Session(model, tokenizer, 0),
        lambda model, tokenizer: Session(model, tokenizer, 512.0),
        lambda model, tokenizer: Session(model, tokenizer).read("x", 5),
        lambda model, tokenizer: Session(model, tokenizer).cut(-1),
        lambda model, tokenizer: measure_perplexity(model, [5, 6, 7], 0),
        lambda model, tokenizer: fit([5] * 9, 3, "sufix"),
    ],
)
def test_other_arguments_of_the_wrong_kind(bare: Any, tokenizer: Any, wrong: Any) -> None:
    with pytest.raises(InfLLMError) as refusal:
        wrong(bare, tokenizer)
    assert "\n" not in str(refusal.value)


def test_encode_does_not_mind_length(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer.model_max_length = 10
    assert len(encode(tokenizer, "abc" * 100)) == 300
    assert not caplog.records
