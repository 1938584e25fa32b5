"""Answers that follow a grammar: whatever a model would say, its text fits, and ends in time."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch

pytest.importorskip("llguidance", reason="needs the extra 'structured'")
pytest.importorskip("jsonschema", reason="needs the extra 'dev'")

import jsonschema

from benchmark.schemas import SCHEMAS
from inf_llm.errors import MissingExtraError, SettingsError
from inf_llm.generation.grammar import Grammars
from tests.chat.conftest import chat_tokenizer
from tests.generation.grammars import TOKENIZER, drawn, made

OBJECT = {"type": "object"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return TOKENIZER


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return made()


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_is_drawn_fits_the_schema(name: str, grammars: Grammars, tokenizer: Any) -> None:
    schema = SCHEMAS[name][1]
    check = jsonschema.Draft202012Validator
    validator = check(schema, format_checker=check.FORMAT_CHECKER)
    grammar = grammars.of_schema(schema)
    texts = set()
    for seed in range(8):
        ids, constraint = drawn(grammar, seed)
        assert constraint.complete
        texts.add(tokenizer.decode(ids, skip_special_tokens=True))
    assert len(texts) > 1
    for text in texts:
        validator.validate(json.loads(text))


def test_the_end_comes_where_the_json_is_complete(grammars: Grammars, tokenizer: Any) -> None:
    end = tokenizer.eos_token_id
    constraint = grammars.of_schema({"type": "integer"}).constraint(0, 5000)
    ids = torch.empty(1, 0, dtype=torch.int64)
    for text, may_end in (("", False), ("-", False), ("1", True), ("2", True)):
        ids = torch.cat((ids, torch.tensor([tokenizer.encode(text)], dtype=torch.int64)), 1)
        scores = constraint(ids, torch.zeros(1, len(tokenizer)))
        assert (scores[0, end] == 0).item() is may_end
        assert not constraint.over(ids, scores).item()
    ids = torch.cat((ids, torch.tensor([[end]])), 1)
    assert constraint.over(ids, None).item()


def test_a_model_without_an_end_stops_there_too(tokenizer: Any) -> None:
    grammar = Grammars(tokenizer, len(tokenizer), None).of_schema(SCHEMAS["flat"][1])
    _, constraint = drawn(grammar, 0)
    assert constraint.complete


def test_control_tokens_are_never_text() -> None:
    """Not even those that only the chat template makes control tokens."""
    tokenizer = chat_tokenizer()
    tokenizer.add_tokens(["<turn>"])
    tokenizer.chat_template = "{% for m in messages %}<turn>{{ m['content'] }}{% endfor %}"
    grammars = Grammars(tokenizer, len(tokenizer), [tokenizer.eos_token_id])
    constraint = grammars.of_schema({"type": "string"}).constraint(0, 5000)
    scores = constraint(torch.tensor([tokenizer.encode('"')]), torch.zeros(1, len(tokenizer)))
    turn = tokenizer.convert_tokens_to_ids("<turn>")
    letter = tokenizer.convert_tokens_to_ids("t")
    assert scores[0, turn] == -torch.inf
    assert scores[0, letter] == 0
    constraint = grammars.of_schema({"const": "<turn>"}).constraint(0, 5000)
    ids = torch.empty(1, 0, dtype=torch.int64)
    while not constraint.over(ids, None).item():
        scores = constraint(ids, torch.zeros(1, len(tokenizer)))
        assert scores[0, turn] == -torch.inf
        ids = torch.cat((ids, scores.argmax(-1, keepdim=True)), 1)
    assert tokenizer.decode(ids[0]) == '"<turn>"'
    assert grammars.lark_piece("<turn>") == f"<[{turn}]>"
    assert grammars.lark_piece("[x]") == '"[x]"'


def test_answers_of_one_grammar_do_not_touch_each_other(grammars: Grammars) -> None:
    grammar = grammars.of_schema(OBJECT)
    alone = drawn(grammar, 1)[0]
    drawn(grammar, 2)
    assert drawn(grammar, 1)[0] == alone


@pytest.mark.parametrize(
    ("text", "most"), [("{", 1), ('{"a":', 1), ("{\n", 16), ('{"a": 1,\n', 16)]
)
def test_white_space_has_an_end(grammars: Grammars, tokenizer: Any, text: str, most: int) -> None:
    space = tokenizer.encode(" ")[0]
    constraint, count = grammars.of_schema(OBJECT).constraint(0, 5000), 0
    while count < 100:
        ids = torch.tensor([tokenizer.encode(text + " " * count)])
        if constraint(ids, torch.zeros(1, len(tokenizer)))[0, space] == -torch.inf:
            break
        count += 1
    assert count == most


def test_json_on_many_lines_is_json(grammars: Grammars, tokenizer: Any) -> None:
    text = json.dumps({"a": [1, {"b": []}], "c": ""}, indent=4)
    constraint = grammars.of_schema(OBJECT).constraint(0, 5000)
    constraint(torch.tensor([tokenizer.encode(text)]), torch.zeros(1, len(tokenizer)))
    assert constraint.complete


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "strin"}, "strin"),
        ({"$ref": "#/$defs/none"}, "none"),
        ({"$ref": "http://example.com/schema"}, "example.com"),
        ({"$ref": "#"}, "no text fits"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum"),
        ({"type": "string", "pattern": "(["}, "regex"),
        ({"type": "string", "pattern": "^(x{1000}){1000}$"}, r"x\{1000\}.* too many"),
        ({"properties": {"a": {"items": {"pattern": "^(x{1000}){1000}$"}}}}, "too many"),
        ({"const": "\ud800"}, "schema"),
        ("text", "schema"),
        ({"enum": ["x" * 300_000]}, "at most 200,000"),
        ({"type": "number", "multipleOf": 2**31}, "multipleOf = 2147483648.* at most 50,000"),
        ({"type": "integer", "multipleOf": 10**6 - 17}, "multipleOf = 999983,"),
        ({"type": "number", "multipleOf": 2.0**40}, "multipleOf = 1099511627776"),
        (
            {"allOf": [{"type": "integer", "multipleOf": n} for n in (9973, 9967)]},
            "198,801,782 remainders",
        ),
        (
            {"properties": {"a": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}}},
            "exclusiveMinimum = 0 and maximum = 0.5",
        ),
        (
            {"type": "number", "exclusiveMaximum": 2, "exclusiveMinimum": 1.5},
            "exclusiveMaximum = 2 and exclusiveMinimum = 1.5",
        ),
    ],
)
def test_what_cannot_be_enforced_is_refused(grammars: Grammars, schema: Any, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        grammars.of_schema(schema)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("step", [1, 0.25, 86_400, 5_000_000, 10**6, 49_999])
def test_multiples_of_usual_numbers(grammars: Grammars, step: float) -> None:
    assert grammars.of_schema({"type": "integer", "multipleOf": step})


@pytest.mark.parametrize("more", [{}, {"maximum": 1}, {"exclusiveMaximum": 1}, {"maximum": 1e9}])
def test_a_whole_number_that_is_excluded(grammars: Grammars, tokenizer: Any, more: Any) -> None:
    schema = {"type": "number", "exclusiveMinimum": 0} | more
    matcher = grammars.of_schema(schema).matcher.deep_copy()
    assert matcher.consume_tokens(tokenizer.encode("0", add_special_tokens=False))
    assert not matcher.is_accepting()


@pytest.mark.parametrize("count", [10, 600, 3000])
def test_properties_that_may_be_left_out(grammars: Grammars, tokenizer: Any, count: int) -> None:
    schema = {"type": "object", "properties": {f"p{n}": {"type": "integer"} for n in range(count)}}
    matcher = grammars.of_schema(schema).matcher.deep_copy()
    text = f'{{"p1": 1, "p{count - 1}": 2}}'
    assert matcher.consume_tokens(tokenizer.encode(text, add_special_tokens=False))
    assert matcher.is_accepting()


def test_a_pattern_among_values_is_no_rule(grammars: Grammars) -> None:
    assert grammars.of_schema({"const": {"pattern": "(["}})
    assert grammars.of_schema({"properties": {"pattern": {"type": "integer"}}})


def test_words_about_multiples_are_no_rule(grammars: Grammars) -> None:
    assert grammars.of_schema({"const": '"multipleOf": 999983', "description": "multipleOf"})
    assert grammars.of_schema({"properties": {"multipleOf": {"const": 999_983}}})


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match=r"inf-llm\[structured\]"):
        Grammars(tokenizer, 10, None).of_schema(OBJECT)


def test_without_a_fast_tokenizer() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(SettingsError, match="fast tokenizer"):
        Grammars(Slow(), 10, None).of_schema(OBJECT)
