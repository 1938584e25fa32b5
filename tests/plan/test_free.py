"""Free memory: what the system says, and the limit of a container."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from inf_llm.plan import free


def _group(folder: Path, limit: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(limit)
    (folder / "memory.current").write_text(str(used))
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 0\n")


def test_the_host_has_no_more_than_the_system_says() -> None:
    found = free.host_free()
    assert found is not None
    assert 0 < found <= psutil.virtual_memory().total


def test_the_tightest_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup_file = tmp_path / "cgroup"
    cgroup_file.write_text("0::/outer/inner\n")
    _group(tmp_path / "outer", "1000", 600, 100)
    _group(tmp_path / "outer" / "inner", "max", 600, 0)
    assert free._group_free(tmp_path, cgroup_file) == 500
    _group(tmp_path / "outer" / "inner", "700", 650, 0)
    assert free._group_free(tmp_path, cgroup_file) == 50
    monkeypatch.setattr(free, "_GROUPS", tmp_path)
    monkeypatch.setattr(free, "_CGROUP_FILE", cgroup_file)
    assert free.host_free() == 50


def test_without_groups_nothing_is_known(tmp_path: Path) -> None:
    assert free._group_free(tmp_path, tmp_path / "absent") is None
