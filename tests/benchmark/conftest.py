"""The repository on the path, and the folder of real samples if there is one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def _data_folder() -> Path | None:
    given = os.environ.get("INF_LLM_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real samples beside the project; they are not part of it."""
    folder = _data_folder()
    if folder is None:
        pytest.skip("no data folder: set INF_LLM_DATA, or put it at ../shared/data")
    return folder


@pytest.fixture(scope="session")
def count_words():
    """A tokenizer of a kind: a token is four characters."""
    return lambda text: -(-len(text) // 4)
