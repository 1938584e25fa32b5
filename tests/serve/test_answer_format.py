"""The form that an answer is asked to have."""

from __future__ import annotations

from typing import Any

import pytest

from inf_llm.serve.params import chat_question, completion_question
from tests.serve.questions import CHAT, ODD, TEXT, refused
from tests.serve.test_tools import deep

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def named(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **more}}


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        (named(SCHEMA), SCHEMA),
        (named(SCHEMA, strict=True, description="y"), SCHEMA),
        ({"type": "json_schema", "schema": SCHEMA}, SCHEMA),
        ({"type": "json_object", "schema": SCHEMA}, SCHEMA),
    ],
)
def test_schemas(given: Any, schema: Any) -> None:
    assert chat_question(CHAT | {"response_format": given}).schema == schema
    assert completion_question(TEXT | {"response_format": given}).schema == schema


@pytest.mark.parametrize(
    "given",
    [
        *ODD,
        {"type": "grammar"},
        {"type": 5},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": 5},
        {"type": "text", "schema": SCHEMA},
        {"type": "json_object", "json_schema": {"schema": SCHEMA}},
        {"type": "json_object", "shcema": SCHEMA},
        {"type": "json_object", "schema": [1]},
        named(None),
        named([1]),
        named(True),
        named({"const": "\ud800"}),
        named(deep(100)),
    ],
    ids=repr,
)
def test_what_is_refused(given: Any) -> None:
    error = refused({"response_format": given})
    assert error.param is not None
    assert error.param.startswith("response_format")


@pytest.mark.parametrize(
    "name", ["guided_json", "guided_regex", "structured_outputs", "grammar", "json_schema"]
)
def test_other_servers_names_are_refused_by_name(name: str) -> None:
    assert refused({name: {"type": "object"}}).param == name
