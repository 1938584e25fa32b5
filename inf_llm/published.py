"""Keys of published and earlier configurations, each of which gives a part of one choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from inf_llm.checks import FieldTypes, mismatch, require
from inf_llm.choice import Choice
from inf_llm.errors import SettingsError

_PUBLISHED_DECAY = 0.1
"""Published files have `score_decay: 0.1` together with every eviction policy."""

_KEYS: dict[str, tuple[str, bool, type, object]] = {
    "repr_topk": ("summary", True, int, None),
    "perhead": ("selection", False, bool, False),
    "cache_strategy": ("eviction", False, str, None),
    "score_decay": ("eviction", False, float, None),
    "faiss": ("index", False, bool, False),
    "faiss_ivf_from": ("index", True, int, None),
    "chunk_topk_calc": ("index", True, int, None),
    "scaling_factor": ("scaling", False, float, 1.0),
    "trained_len": ("scaling", True, int, None),
}
"""For each key: the setting that the key belongs to, whether None is allowed, the type of the
value, and the value that has no effect."""


_NAMING = {"perhead", "cache_strategy", "faiss"}
"""The keys that select the row of a registry; the other keys are options."""
_RETRIEVAL = ("summary", "selection")


def published_keys(settings: Iterable[str]) -> FieldTypes:
    """The published keys that give a part of one of these settings, with their types."""
    known = set(settings)
    return {key: row[1:3] for key, row in _KEYS.items() if row[0] in known}


def translated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with choices in the place of published keys.

    Raises:
        SettingsError: a key has a value of another type, or repeats a setting that is given.
    """
    result = {key: value for key, value in values.items() if key not in _KEYS}
    by_setting: dict[str, dict[str, Any]] = {}
    for key in (key for key in _KEYS if key in values):
        setting, optional, kind, nothing = _KEYS[key]
        problem = mismatch(key, values[key], optional, kind)
        require(problem is None, key, problem or "")
        if values[key] != nothing:
            by_setting.setdefault(setting, {})[key] = values[key]
    if values.get("summary") is None and by_setting.keys() & {*_RETRIEVAL, "index"}:
        for setting in _RETRIEVAL:  # one published key of retrieval selects its whole rule
            if values.get(setting) is None:
                by_setting.setdefault(setting, {})
    for setting, keys in by_setting.items():
        given = values.get(setting)
        taken = bool(_NAMING & keys.keys()) or not isinstance(given, str)
        if given is not None and taken:
            key = next(iter(keys))
            message = f"{key} says a part of {setting}, which is given: leave one out"
            raise SettingsError(message, key)
        result[setting] = _CHOICES[setting](given, keys)
    return result


def _summary(given: str | None, keys: dict[str, Any]) -> Choice:
    options = {"tokens": keys["repr_topk"]} if keys else {}
    return Choice(given or "most-attended", options, {"tokens": "repr_topk"})


def _selection(given: str | None, keys: dict[str, Any]) -> Choice:
    return Choice("query-head" if "perhead" in keys else "layer", {"scores": "sum"})


def _eviction(given: str | None, keys: dict[str, Any]) -> Choice:
    name = keys.get("cache_strategy", given or "lru")
    options = {"decay": keys["score_decay"]} if "score_decay" in keys else {}
    if name != "lru-s" and options.get("decay") == _PUBLISHED_DECAY:
        options = {}
    spelled = {"name": "eviction" if given else "cache_strategy", "decay": "score_decay"}
    return Choice(name, options, spelled)


def _index(given: str | None, keys: dict[str, Any]) -> Choice:
    parts = {"faiss_ivf_from": "start", "chunk_topk_calc": "chunk"}
    options = {parts[key]: value for key, value in keys.items() if key in parts}
    require(
        given is not None or "faiss" in keys or "start" not in options,
        "faiss_ivf_from",
        f"faiss_ivf_from = {options.get('start')} has no effect with faiss = false: "
        "leave it out, or set faiss to true",
    )
    if "faiss" in keys:
        options.pop("chunk", None)  # faiss limits its own memory
        name = "ivf" if options else "faiss"
    else:
        name = given or "torch"
    return Choice(name, options, {part: key for key, part in parts.items()})


def _scaling(given: str | None, keys: dict[str, Any]) -> Choice:
    parts = {"scaling_factor": "factor", "trained_len": "trained_len"}
    options = {parts[key]: value for key, value in keys.items()}
    return Choice(given or "none", options, {part: key for key, part in parts.items()})


_CHOICES: dict[str, Callable[[str | None, dict[str, Any]], Choice]] = {
    "summary": _summary,
    "selection": _selection,
    "eviction": _eviction,
    "index": _index,
    "scaling": _scaling,
}
