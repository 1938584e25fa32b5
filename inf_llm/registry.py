"""Names to classes: one line adds a variant; an unknown name is answered with the nearest one."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from inf_llm.errors import SettingsError


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt `name`: ``"did you mean 'lru'? "``, or nothing if none is near.

    The last part of a dotted name counts by itself, so that `topk` leads to `model.topk`.
    """
    known = list(known)
    tails = {row.rsplit(".", 1)[-1]: row for row in known}
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    tail = difflib.get_close_matches(name.rsplit(".", 1)[-1], tails, n=1, cutoff=0.6)
    found = close or [tails[match] for match in tail]
    return f"did you mean {found[0]!r}? " if found else ""


def accepted(name: str, known: Iterable[str]) -> str:
    """What to say after an unknown `name`: the nearest known one, and all where they are few."""
    known = list(known)
    hint = nearest(name, known)
    return hint.strip() if hint and len(known) > 10 else f"{hint}accepted: {', '.join(known)}"


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
            raise SettingsError(
                f"{name!r} is not a known {self.kind}; {accepted(str(name), self._rows)}"
            )
