"""Texts that come to their longest are brought to an end that their schema lets them have."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("llguidance", reason="needs the extra 'structured'")
pytest.importorskip("jsonschema", reason="needs the extra 'dev'")

import jsonschema

from benchmark.schemas import SCHEMAS
from inf_llm.generation.grammar import Grammars
from tests.generation.grammars import TOKENIZER, drawn, made

TREE = {
    "type": "object",
    "properties": {"of": {"type": "array", "items": {"$ref": "#"}, "minItems": 0}},
    "required": ["of"],
}
MORE: dict[str, Any] = {
    "endless text": {"type": "string", "minLength": 4},
    "endless digits": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "endless tree": TREE,
    "any": {"type": "object"},
    "null or a tree": {
        "type": "object",
        "properties": {"a": {"anyOf": [{"type": "null"}, TREE]}},
        "required": ["a"],
    },
    "pattern": {
        "type": "array",
        "items": {"type": "string", "pattern": "^(a+b)+c$"},
        "minItems": 2,
    },
}
ALL = {name: schema for name, (_, schema) in SCHEMAS.items()} | MORE


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return made()


@pytest.mark.parametrize("name", ALL)
def test_no_text_is_cut(name: str, grammars: Grammars) -> None:
    grammar = grammars.of_schema(ALL[name])
    assert grammar.closers is not None
    shortest = grammar.closers.path(grammar.matcher, 300)
    assert shortest is not None
    check = jsonschema.Draft202012Validator
    validator = check(ALL[name], format_checker=check.FORMAT_CHECKER)
    for seed in (0, 1, 5):
        longest = 2 * len(shortest) + 5 + 20 * seed
        ids, _ = drawn(grammar, seed, longest)
        assert len(ids) <= longest
        validator.validate(json.loads(TOKENIZER.decode(ids, skip_special_tokens=True)))


def test_control_some_are_cut_without(grammars: Grammars) -> None:
    grammar = replace(grammars.of_schema(MORE["endless text"]), closers=None)
    _, constraint = drawn(grammar, 0, 20)
    assert not constraint.complete
    assert not constraint.closed


def test_what_ends_by_itself_is_as_the_model_has_it(grammars: Grammars) -> None:
    grammar = grammars.of_schema(SCHEMAS["enum"][1])
    with_closers = drawn(grammar, 0, 400)
    without = drawn(replace(grammar, closers=None), 0, 400)
    assert with_closers[0] == without[0]
    assert not with_closers[1].closed


def test_a_text_that_may_end_is_not_made_to(grammars: Grammars) -> None:
    ids, constraint = drawn(grammars.of_schema({"type": "integer"}), 3, 8)
    assert not constraint.closed
    assert isinstance(json.loads(TOKENIZER.decode(ids, skip_special_tokens=True)), int)


@pytest.mark.parametrize("schema", [{"type": "string", "minLength": 90}, SCHEMAS["nested"][1]])
def test_one_that_cannot_end_in_time_is_cut(
    schema: Any, grammars: Grammars, tokenizer: Any
) -> None:
    ids, constraint = drawn(grammars.of_schema(schema), 0, 10)
    assert len(ids) == 10
    assert not constraint.complete
    assert not constraint.closed


def test_calls_of_functions_are_cut(grammars: Grammars) -> None:
    """With half of its arguments one would do something else."""
    assert grammars.of_lark('start: "a"').closers is None
