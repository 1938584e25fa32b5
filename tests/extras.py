"""Marks of tests that need a package which not every installation has."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

FAISS = importlib.util.find_spec("faiss") is not None
with_faiss = pytest.mark.skipif(not FAISS, reason="the faiss package is not installed")


def changes(several: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Settings as parameters of a test, with a mark where they need faiss."""
    return [pytest.param(each, marks=[with_faiss] * bool(each.get("faiss"))) for each in several]
