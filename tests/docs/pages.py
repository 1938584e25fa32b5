"""What stands in the Markdown pages: their code and their links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A piece of code in a page.

    Attributes:
        language: what the fence says.
        name: the file name that its first line gives, `# name`, or "".
        code: all of it.
    """

    language: str
    name: str
    code: str


def blocks(page: Path) -> list[Block]:
    """The fenced code of a page, in order."""
    found = []
    for language, code in _FENCED.findall(page.read_text(encoding="utf-8")):
        name = re.match(r"# (\S+\.\w+)\n", code)
        found.append(Block(language, name[1] if name else "", code))
    return found


def prose(page: Path) -> str:
    """A page without its fenced code."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))
