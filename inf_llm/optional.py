"""Optional packages: imported at their first use, with an error that names a missing package."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from inf_llm.errors import MissingExtraError, SettingsError


def need(package: str, why: str, extra: str = "eval") -> ModuleType:
    """Import and return a package.

    Raises:
        MissingExtraError: the package is not installed; the message says in one line what needs
            the package and how to install it.
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
    """Give a matplotlib figure with panels side by side to draw on, then write it to a file.

    Args:
        option: name of the path in messages.
        path: file of the picture; its ending selects the format.
        panels: number of panels.
        dpi: dots per inch.
        **how: further arguments of `pyplot.subplots`.

    Yields:
        The figure and the array of its panels.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SettingsError: the file cannot be written, or its ending is not a picture format.
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
