"""Tables from names to classes, one row per variant; errors suggest the nearest known name."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inf_llm.errors import SettingsError, reason

GROUP = "inf_llm.variants"
"""Entry points of this group are rows from other distributions; see `inf_llm.variants`."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt `name`: ``"did you mean 'lru'? "``; empty if no known name is near.

    The last part of a dotted name is also compared by itself, so that `topk` gives `model.topk`.
    """
    known = list(known)
    tails = {row.rsplit(".", 1)[-1]: row for row in known}
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    tail = difflib.get_close_matches(name.rsplit(".", 1)[-1], tails, n=1, cutoff=0.6)
    found = close or [tails[match] for match in tail]
    return f"did you mean {found[0]!r}? " if found else ""


def accepted(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown `name`: the nearest known name, and all if few."""
    known = list(known)
    hint = nearest(name, known)
    return hint.strip() if hint and len(known) > 10 else f"{hint}accepted: {', '.join(known)}"


@dataclass(frozen=True)
class _Row:
    """The places of a variant and of its options; a variant from outside has `Settings` instead."""

    target: Any
    options: str | None = None
    outside: bool = True


class Registry:
    """A table of names, each with the place ``"module:attribute"`` or ``"module"`` of a variant.

    A variant is imported when it is first needed. `import inf_llm` stays fast, and a missing extra
    affects only the rows that need it.

    Args:
        kind: name of the kind of rows, for messages.
        rows: rows of this package: a place, or a pair of the place and the place of the dataclass
            of options.
        key: name of the kind in entry points; None for a table without rows from entry points.
    """

    def __init__(
        self, kind: str, rows: Mapping[str, str | tuple[str, str]], key: str | None = None
    ) -> None:
        self.kind = kind
        self.own = tuple(rows)
        """Names of the rows of this package."""
        self._key = key
        pairs = {name: (row, None) if isinstance(row, str) else row for name, row in rows.items()}
        self._own = {name: _Row(place, options, False) for name, (place, options) in pairs.items()}
        self._added: dict[str, _Row] = {}

    @property
    def _rows(self) -> dict[str, _Row]:
        installed = {} if self._key is None else _installed(self._key)
        clash = self._own.keys() & installed.keys()
        if clash:
            raise SettingsError(
                f"an installed distribution has the {self.kind} {min(clash)!r} in the entry "
                f"points {GROUP}, which is a name of this package: give it another one"
            )
        return {**self._own, **installed, **self._added}

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._rows

    def add(self, name: str, target: Any) -> None:
        """Add or replace a row; `target` is a place, or is the class or function itself."""
        self._added[name] = _Row(target)

    def get(self, name: str) -> Any:
        """Return the class, function or module of a row.

        Raises:
            SettingsError: `name` is unknown (the message lists the known names), or the place of a
                row from outside cannot be imported.
        """
        self.require(name)
        return self._found(name)

    def options(self, name: str) -> Any:
        """Return the dataclass of the options of a row; None for a row without options."""
        self.require(name)
        row = self._rows[name]
        if row.outside:
            return getattr(self._found(name), "Settings", None)
        return None if row.options is None else _load(row.options)

    def _found(self, name: str) -> Any:
        row = self._rows[name]
        try:
            return _load(row.target)
        except (ImportError, AttributeError) as error:
            if not row.outside:
                raise
            raise SettingsError(
                f"{self.kind} {name!r} is to be at {row.target!r}, which cannot be imported: "
                f"{reason(error)}"
            ) from error

    def require(self, name: str) -> None:
        """Raise `SettingsError` unless `name` is the name of a row."""
        if name not in self:
            raise SettingsError(f"{name!r} is not a known {self.kind}; {accepted(str(name), self)}")


def _load(target: Any) -> Any:
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


@functools.cache
def _installed(key: str) -> dict[str, _Row]:
    """Rows of one kind from the entry points of installed distributions."""
    entries = importlib.metadata.entry_points(group=GROUP)
    of_kind = (entry for entry in entries if entry.name.startswith(f"{key}."))
    return {entry.name.removeprefix(f"{key}."): _Row(entry.value) for entry in of_kind}
