"""Ten JSON schemas with commonly used features, each with a request that fits the schema."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string", "maxLength": 40}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 9999}


def _object(required: int | None = None, /, **properties: Any) -> dict[str, Any]:
    """Return a schema of an object with exactly these properties.

    The first `required` properties are required; None requires all.
    """
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties)[:required],
        "additionalProperties": False,
    }


def _list(items: Any, least: int = 1, most: int = 3) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


_SHAPES = [
    _object(kind={"const": "circle"}, radius=_COUNT),
    _object(kind={"const": "rectangle"}, width=_COUNT, height=_COUNT),
]
_NODE = {"$ref": "#/$defs/node"}

SCHEMAS: dict[str, tuple[str, dict[str, Any]]] = {
    "flat": ("Describe a book.", _object(title=_TEXT, year=_COUNT, read={"type": "boolean"})),
    "nested": (
        "Describe a person who lives in Berlin.",
        _object(name=_TEXT, address=_object(city=_TEXT, geo=_object(zip=_COUNT, street=_TEXT))),
    ),
    "enum": (
        "How warm is it in summer?",
        _object(
            level={"enum": ["cold", "mild", "hot", None]},
            unit={"type": "string", "enum": ["°C", "°F"]},
        ),
    ),
    "array": (
        "List fruit with prices.",
        _list(_object(name=_TEXT, tags=_list({"enum": ["red", "green", "sweet"]}, 0))),
    ),
    "unicode": (
        "Translate 'good morning' into Japanese, Greek and Arabic.",
        _object(**{"日本語": _TEXT, "ελληνικά": _TEXT, "العربية": _TEXT, "☀": {"const": "☀️🙂"}}),
    ),
    "numbers": (
        "Give a point on a map.",
        _object(
            latitude={"type": "number", "minimum": -90, "maximum": 90},
            longitude={"type": "number", "exclusiveMinimum": -180, "maximum": 180},
            zoom={"type": "integer", "minimum": 1, "maximum": 22, "multipleOf": 2},
        ),
    ),
    "one_of": ("Describe a shape.", _object(shape={"oneOf": _SHAPES}, colour=_TEXT)),
    "any_of": (
        "Give an identifier, or say why there is none.",
        {"anyOf": [_object(id={"anyOf": [_COUNT, {"type": "null"}]}), _object(why=_TEXT)]},
    ),
    "optional": (
        "Describe a film.",
        _object(1, name=_TEXT, director=_TEXT, rating={"type": "number", "minimum": 0}),
    ),
    "reference": (
        "Describe a folder with files as a tree.",
        {
            "$defs": {"node": _object(1, name=_TEXT, children=_list(_NODE, 0, 2))},
            **_object(root=_NODE, stamp={"type": "string", "format": "date"}),
        },
    ),
}
"""Requests and schemas, by the feature that the schema contains."""
