"""Packages that not everyone needs: imported when used, asked for by name when absent."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from inf_llm.errors import MissingExtraError, SettingsError


def need(package: str, why: str, extra: str = "eval") -> ModuleType:
    """The imported package.

    Raises:
        MissingExtraError: it is not installed; one line says what needs it and how to get it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f"{why} needs the package {package.split('.')[0]!r}, which is not installed: "
            f"pip install 'inf-llm[{extra}]'"
        ) from error


@contextmanager
def drawn(option: str, path: Path, panels: int = 1, dpi: int = 100, **how: Any) -> Iterator[Any]:
    """A matplotlib figure and its panels side by side, to be drawn on; then it is written.

    Args:
        option: what a message calls the path.
        path: its ending is the picture's format.
        panels: how many.
        dpi: dots in an inch.
        **how: for `pyplot.subplots`.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SettingsError: the file cannot be written, or its ending is no picture format.
    """
    need("matplotlib", option, "plot").use("Agg")
    pyplot = need("matplotlib.pyplot", option, "plot")
    figure, axes = pyplot.subplots(1, panels, squeeze=False, **how)
    try:
        yield figure, axes[0]
        try:
            figure.savefig(path, dpi=dpi)
        except (OSError, ValueError) as error:
            raise SettingsError(f"{option} {path} cannot be written: {error}") from error
    finally:
        pyplot.close(figure)
