"""Read literals from the Python files of a benchmark's repository without running them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from benchmark.tasks.base import DataError


def read_dict(path: Path, name: str) -> dict[str, Any]:
    """Return a dict literal that a Python file assigns to `name`, without running the file.

    Raises:
        DataError: the file has no such literal.
    """
    items = _items(_assigned(path, name), path, name)
    return {str(_literal(key)): _literal(value) for key, value in items}


def _items(node: ast.expr, path: Path, name: str) -> list[tuple[ast.expr, ast.expr]]:
    if not isinstance(node, ast.Dict) or None in node.keys:
        raise DataError(f"{name} in {path} is not a plain dict literal")
    return [(k, v) for k, v in zip(node.keys, node.values, strict=True) if k is not None]


def _literal(node: ast.expr) -> Any:
    """Evaluate a constant, a dict, or strings joined by ``+``, unlike `ast.literal_eval`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return str(_literal(node.left)) + str(_literal(node.right))
    if isinstance(node, ast.Dict):
        keys = [_literal(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_literal, node.values), strict=True))
    return ast.literal_eval(node)


def read_string(path: Path, name: str) -> str:
    """Return the string literal that a Python file first assigns to `name`."""
    return str(_literal(_assigned(path, name)))


def _assigned(path: Path, name: str) -> ast.expr:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            return node.value
    raise DataError(f"{path} assigns no {name}")
