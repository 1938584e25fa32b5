"""The seal: a manifest and the segment of the state that do not belong together are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from inf_llm.saved.seal import SEAL, broken_seal, seal
from tests.saved.folders import save


def test_a_changed_manifest_breaks_it(tmp_path: Path) -> None:
    found = save(tmp_path)
    state = {SEAL: seal(found)}
    assert broken_seal(tmp_path, found, state) is None
    for other in (replace(found, tokens=found.tokens + 1), replace(found, note={"a": 1})):
        assert "manifest.json was changed" in str(broken_seal(tmp_path, other, state))


def test_segments_are_no_part_of_it(tmp_path: Path) -> None:
    found = save(tmp_path)
    assert broken_seal(tmp_path, replace(found, segments=()), {SEAL: seal(found)}) is None


def test_a_state_without_a_seal(tmp_path: Path) -> None:
    assert broken_seal(tmp_path, save(tmp_path), {}) is not None
