"""Packages that only some metrics need: imported when used, asked for by name when absent."""

from __future__ import annotations

import importlib
import logging
from types import ModuleType

from inf_llm.errors import MissingExtraError


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


def need_jieba(why: str) -> ModuleType:
    """jieba, without its messages about loading a dictionary."""
    jieba = need("jieba", why)
    jieba.setLogLevel(logging.ERROR)
    return jieba
