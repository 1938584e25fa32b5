"""Names to classes: one line adds a variant, and an unknown name is answered with the nearest one."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from inf_llm.errors import SettingsError


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt `name`: ``"did you mean 'lru'? "``, or nothing if none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}? " if close else ""


class Registry:
    """A table of ``name -> "module:attribute"``, imported only when asked for.

    Lazy rows keep `import inf_llm` light and let a row whose extra is missing fail by itself.
    """

    def __init__(self, kind: str, rows: dict[str, str]) -> None:
        self.kind = kind
        self._rows = dict(rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def add(self, name: str, target: str) -> None:
        """Add or replace a row; `target` is ``"package.module:attribute"``."""
        self._rows[name] = target

    def get(self, name: str) -> Any:
        """The class or function behind `name`; an unknown name lists the known ones."""
        self.require(name)
        module, attribute = self._rows[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def require(self, name: str) -> None:
        """Raise `SettingsError` unless `name` is a row."""
        if name not in self._rows:
            known = ", ".join(self._rows)
            hint = nearest(str(name), self._rows)
            raise SettingsError(f"{name!r} is not a known {self.kind}; {hint}accepted: {known}")
