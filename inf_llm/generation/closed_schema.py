"""JSON schemas whose objects have no other properties than those that are named.

A schema that says nothing of other properties accepts any. A model that may write them does, to no
use: so an object is closed where that leaves all values of the named properties possible.
"""

from __future__ import annotations

from typing import Any

from inf_llm.generation.bounds import check_bounds

_COMBINED = {"anyOf", "oneOf", "$ref"}
_OTHERS = {
    *("additionalProperties", "patternProperties", "unevaluatedProperties"),
    *("minProperties", "propertyNames"),
}


def closed(schema: Any) -> Any:
    """The schema, its objects closed; as it is where objects are put together from parts.

    Raises:
        SettingsError: it cannot be enforced.
        RecursionError: it is too deep.
    """
    check_bounds(schema)
    return schema if _put_together(schema) else _closed(schema)


def _put_together(schema: Any) -> bool:
    """Whether the properties of one object may stand in several places."""
    if isinstance(schema, list):
        return any(map(_put_together, schema))
    if not isinstance(schema, dict):
        return False
    combined = "properties" in schema and bool(_COMBINED & schema.keys())
    return combined or "allOf" in schema or any(map(_put_together, schema.values()))


def _closed(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    for name in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(name), dict):
            made[name] = {key: _closed(inner) for key, inner in schema[name].items()}
    for name in ("anyOf", "oneOf", "prefixItems"):
        if isinstance(schema.get(name), list):
            made[name] = [_closed(inner) for inner in schema[name]]
    for name in ("items", "additionalProperties"):
        if name in schema:
            made[name] = _closed(schema[name])
    named, needed = schema.get("properties"), schema.get("required", [])
    if isinstance(named, dict) and isinstance(needed, list) and not _OTHERS & schema.keys():
        # what is no name is for the grammar to refuse
        given = {name for name in needed if isinstance(name, str)}
        made["additionalProperties"] = not given <= named.keys()
    return made
