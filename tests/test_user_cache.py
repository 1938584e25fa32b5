"""What is kept between runs comes back, and nothing fails where it cannot be kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from inf_llm.user_cache import cache_file, cached, keep


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_values_come_back_under_their_keys() -> None:
    assert cached("pace") == {}
    keep("pace", "a", 1)
    keep("pace", "b", [2.5])
    keep("other", "a", "x")
    assert cached("pace") == {"a": 1, "b": [2.5]}
    assert cache_file("pace").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b""])
def test_a_damaged_file_holds_nothing_and_is_replaced(content: bytes) -> None:
    keep("pace", "a", 1)
    cache_file("pace").write_bytes(content)
    assert cached("pace") == {}
    keep("pace", "b", 2)
    assert cached("pace") == {"b": 2}


def test_a_folder_that_cannot_be_made(home: Path) -> None:
    (home / "inf-llm").write_text("a file")
    keep("pace", "a", 1)
    assert cached("pace") == {}
