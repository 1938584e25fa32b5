"""What a request says of the form of its answer: any text, JSON, or JSON of a schema."""

from __future__ import annotations

from typing import Any

from inf_llm.serve.errors import bad_value, unsupported
from inf_llm.serve.tools import check_texts

KINDS = ("text", "json_object", "json_schema")


def schema_of(given: Any, where: str = "response_format") -> dict[str, Any] | None:
    """The JSON schema that an answer must fit; None for any text.

    Args:
        given: the value of the parameter.
        where: what it is called.

    Raises:
        ApiError: it is none that is known.
    """
    if given is None:
        return None
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(kind, str):
        raise bad_value(where, f"{where} must be an object with a type: one of {', '.join(KINDS)}")
    if kind not in KINDS:
        raise unsupported(where, f"{where}.type must be one of {', '.join(KINDS)}")
    if kind != "json_schema":
        return {"type": "object"} if kind == "json_object" else None
    # within an object of its own in chats, and beside the type in /v1/responses
    inner = given.get("json_schema", given)
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(schema, dict):
        raise bad_value(where, f"{where} must have a JSON schema in its field schema")
    check_texts(where, schema)
    return schema
