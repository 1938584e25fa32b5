"""The requested format of an answer: any text, a JSON object, or JSON that fits a schema."""

from __future__ import annotations

from typing import Any

from inf_llm.serve.tools import check_texts
from inf_llm.serve.values import check_fields, wrong

_OBJECT = {"type", "schema", "name", "description", "strict"}
_FIELDS = {"text": {"type"}, "json_object": _OBJECT, "json_schema": _OBJECT | {"json_schema"}}
KINDS = tuple(_FIELDS)


def schema_of(given: Any, where: str = "response_format") -> dict[str, Any] | None:
    """Return the JSON schema that an answer must fit; None for any text.

    Args:
        given: the value of the parameter.
        where: name of the parameter.

    Raises:
        ApiError: the value is not a known format.
    """
    if given is None:
        return None
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(kind, str):
        raise wrong(where, given, f"an object with a type: one of {', '.join(KINDS)}")
    if kind not in KINDS:
        raise wrong(f"{where}.type", kind, f"one of {', '.join(KINDS)}")
    check_fields(where, given, _FIELDS[kind])
    if kind != "json_schema" and given.get("schema") is None:
        return {"type": "object"} if kind == "json_object" else None
    # chats have the schema in an object `json_schema`; /v1/responses has it beside the type
    inner = given.get("json_schema", given)
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(schema, dict):
        raise wrong(f"{where}.schema", schema, "a JSON schema, as an object")
    check_texts(where, schema)
    return schema
