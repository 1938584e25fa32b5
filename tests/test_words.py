"""Words that do not come back: personified code, and words that say nothing exact."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = [
    f"inf_llm/{room}"
    for room in ("serve", "cluster", "hf", "generation", "chat", "cli", "demo", "formats")
]
ROOMS += [
    f"inf_llm/{room}" for room in ("memory", "attention", "kernels", "fidelity", "saved", "plan")
]
ROOMS += ["benchmark", "scripts"]
PAGES = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *(
        f"{folder}/{page.name}"
        for folder in ("docs", "benchmark")
        for page in (ROOT / folder).glob("*.md")
    ),
]

BANNED = {
    "told": "say who gives what to whom, or name the value",
    "nobody": "say what is not done",
    "somebody": "name the part",
    "anybody": "name the part",
    "whoever": "name the part",
    "likewise": "say what is the same",
    "foresee": "predict, expect",
    "foresaw": "predict, expect",
    "foreseen": "predict, expect",
    "foresees": "predict, expect",
}


def _texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and words of each docstring, comment and name; other texts are what a user reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.lineno, str(node.value.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
        elif token.type == tokenize.NAME:
            yield token.start[0], token.string.replace("_", " ")


def _found(texts: Iterator[tuple[int, str]]) -> list[str]:
    words = ((line, word) for line, text in texts for word in re.findall(r"[a-z]+", text.lower()))
    return [f"line {line}: {word!r}: {BANNED[word]}" for line, word in words if word in BANNED]


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_comments_and_names(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        found = _found(_texts(file.read_text(encoding="utf-8")))
        assert not found, f"{file.relative_to(ROOT)}, {found[0]}"


@pytest.mark.parametrize("page", PAGES)
def test_pages(page: str) -> None:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    found = _found((number, line) for number, line in enumerate(lines, 1))
    assert not found, f"{page}, {found[0]}"


def test_such_words_are_found() -> None:
    source = 'def told_twice():\n    """Nobody."""\n    return "told"  # whoever\n'
    assert [found.split(": ")[1] for found in sorted(_found(_texts(source)))] == [
        "'told'",
        "'nobody'",
        "'whoever'",
    ]
