"""Objects are closed, and nothing that fits a closed schema is refused by the schema itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmark.schemas import SCHEMAS
from inf_llm.generation.closed_schema import closed

INNER = {"type": "object", "properties": {"a": {}}}
NO_MORE = {"additionalProperties": False}
CLOSED = INNER | NO_MORE
REFERENCE = {"$ref": "#/$defs/i"}
_WORDS = st.sampled_from(
    [*("properties", "required", "$defs", "anyOf", "oneOf", "allOf", "items", "prefixItems"), "a"]
)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        (INNER, CLOSED),
        (
            {"properties": {"x": INNER}},
            {"properties": {"x": CLOSED}, "additionalProperties": False},
        ),
        ({"type": "array", "items": INNER}, {"type": "array", "items": CLOSED}),
        ({"anyOf": [INNER, {"type": "null"}]}, {"anyOf": [CLOSED, {"type": "null"}]}),
        (
            {"$defs": {"i": INNER}, "$ref": "#/$defs/i"},
            {"$defs": {"i": CLOSED}, "$ref": "#/$defs/i"},
        ),
        ({"additionalProperties": INNER}, {"additionalProperties": CLOSED}),
    ],
)
def test_objects_are_closed(schema: Any, wanted: Any) -> None:
    assert closed(schema) == wanted


@pytest.mark.parametrize(
    "schema",
    [
        *(True, 5, None, [], {}, {"type": "object"}, {"properties": 5}),
        INNER | {"additionalProperties": True},
        INNER | {"patternProperties": {"^b": {}}},
        INNER | {"minProperties": 3},
        {"allOf": [INNER, {"properties": {"b": {}}}]},
        INNER | {"anyOf": [{"properties": {"b": {}}}]},
        {"$defs": {"i": INNER}, "$ref": "#/$defs/i", "properties": {"b": {}}},
    ],
    ids=repr,
)
def test_what_stays_as_it_is(schema: Any) -> None:
    assert closed(schema) == schema


def test_a_property_that_is_needed_without_a_name_stays_possible() -> None:
    assert closed(INNER | {"required": ["b"]})["additionalProperties"]


def test_the_schema_given_is_not_changed() -> None:
    schema = {"properties": {"x": dict(INNER)}}
    closed(schema)
    assert schema == {"properties": {"x": INNER}}


@given(_ANYTHING)
@example({"properties": {"a": {}}, "required": [{}]})
def test_any_json_is_taken(schema: Any) -> None:
    """Whether it is a schema is for the grammar to say."""
    closed(schema)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_that_say_it_themselves(name: str) -> None:
    assert closed(SCHEMAS[name][1]) == SCHEMAS[name][1]
