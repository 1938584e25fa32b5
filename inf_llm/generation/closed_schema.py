"""JSON schemas whose objects accept only the named properties.

By default a JSON schema accepts unnamed properties, and a model then writes useless ones. An object
is therefore closed, if all values of the named properties stay possible.
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
    """Return the schema with closed objects; unchanged if objects are combined from several parts.

    Raises:
        SettingsError: the schema has a bound that cannot be enforced.
        RecursionError: the schema is nested too deeply.
    """
    check_bounds(schema)
    return schema if _put_together(schema) else _closed(schema)


def _put_together(schema: Any) -> bool:
    """Return whether several parts of a schema may define the properties of one object."""
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
        # the grammar refuses entries of `required` that are not names
        given = {name for name in needed if isinstance(name, str)}
        made["additionalProperties"] = not given <= named.keys()
    return made
