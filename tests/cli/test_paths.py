"""Paths on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer

from inf_llm.cli import app


def _commands(group: typer.Typer) -> Iterator[Callable[..., Any]]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _commands(inner.typer_instance)


def _paths() -> Iterator[tuple[str, str, Any]]:
    """Of every command, what takes a path."""
    for command in _commands(app):
        plain = inspect.unwrap(command)
        hints = get_type_hints(plain, include_extras=True)
        for name, hint in hints.items():
            if "Path" in str(getattr(hint, "__origin__", "")):
                yield plain.__name__, name, hint.__metadata__[0]


@pytest.mark.parametrize(("command", "name", "option"), [*_paths()])
@pytest.mark.parametrize("path", ["", "  ", "a\0b"])
def test_what_is_no_path_is_refused(command: str, name: str, option: Any, path: str) -> None:
    assert option.parser is not None, f"{name} of {command} takes '' for the current folder"
    with pytest.raises(typer.BadParameter, match="is no path"):
        option.parser(path)
    assert option.parser(".") == Path()


def test_control_there_are_paths() -> None:
    assert {"memory_dir", "save", "folder", "read", "memory"} <= {name for _, name, _ in _paths()}
