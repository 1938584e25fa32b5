"""The manifest: what it says comes back, and what was changed is refused."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inf_llm.errors import SavedMemoryError, UnsupportedInputError
from inf_llm.saved.manifest import NAME, differences, plain, read_manifest
from tests.saved.folders import save

STRANGE: list[Any] = [None, True, -1, 0, 1.5, 10**30, "", "x", "../x", [], [1], {}, {"a": 1}]


def checksum(data: dict[str, Any]) -> str:
    """As docs/memory-format.md has it."""
    rest = {key: value for key, value in data.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def edited(folder: Path, data: Any, recomputed: bool = True) -> None:
    """Write a manifest by hand."""
    if recomputed:
        data["checksum"] = checksum(data)
    (folder / NAME).write_text(json.dumps(data))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a nested one are."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inner:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from places(part, (*path, key))


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The same with another value in one place."""
    twin = copy.deepcopy(data)
    inner = twin
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return twin


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    made = save(tmp_path)
    assert read_manifest(tmp_path) == made
    assert made.nbytes == sum(each.stat().st_size for each in tmp_path.glob("*.safetensors"))
    assert [each.file for each in made.of_kind("state")] == ["state-000001.safetensors"]
    data = json.loads((tmp_path / NAME).read_text(encoding="utf-8"))
    assert data["checksum"] == checksum(data)
    assert data["note"] == {"title": "Война"}


def test_a_seal_is_of_all_but_the_segments(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a"), save(tmp_path / "b", tokens=4)
    assert read_manifest(tmp_path / "a").seal == first.seal
    assert second.seal != first.seal


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'"x"', b"null", b"[]"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(SavedMemoryError, match=r"is not JSON|format None is not known"):
        read_manifest(tmp_path)


def test_a_folder_without_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "no", tmp_path / "file"):
        with pytest.raises(SavedMemoryError, match="holds no memory"):
            read_manifest(folder)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_is_named(tmp_path: Path, version: Any) -> None:
    save(tmp_path)
    edited(tmp_path, json.loads((tmp_path / NAME).read_text()) | {"format": version})
    with pytest.raises(SavedMemoryError, match=rf"format {version!r} is not known; .* format 1"):
        read_manifest(tmp_path)


def test_a_manifest_that_was_edited_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    data = json.loads((tmp_path / NAME).read_text())
    edited(tmp_path, data | {"tokens": 4}, recomputed=False)
    with pytest.raises(SavedMemoryError, match="was changed after it was written"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "state-000001.safetensors/../x", "lock", "manifest.json", ""]
)
def test_files_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    save(tmp_path)
    data = json.loads((tmp_path / NAME).read_text())
    data["segments"][0]["file"] = name
    edited(tmp_path, data)
    with pytest.raises(SavedMemoryError, match="which is no segment"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "order",
    [[], [0, 1], [0, 1, 2, 2], [0, 2], [1, 2], [0, 0, 1, 1, 2], [3, 0, 1, 4, 2], [0, 3, 1, 2]],
)
def test_segments_that_do_not_belong_together_are_refused(tmp_path: Path, order: list[int]) -> None:
    save(tmp_path)
    save(tmp_path)
    data = json.loads((tmp_path / NAME).read_text())
    rows = {each["file"]: each for each in data["segments"]}
    names = ["blocks-000001", "index-000001", "state-000002", "blocks-000002", "index-000002"]
    data["segments"] = [rows[f"{names[at]}.safetensors"] for at in order]
    edited(tmp_path, data)
    with pytest.raises(SavedMemoryError, match="do not belong together"):
        read_manifest(tmp_path)


def test_an_index_may_be_that_of_several_segments_of_blocks(tmp_path: Path) -> None:
    save(tmp_path)
    save(tmp_path)
    data = json.loads((tmp_path / NAME).read_text())
    data["segments"] = [each for each in data["segments"] if each["file"][:12] != "index-000001"]
    edited(tmp_path, data)
    assert len(read_manifest(tmp_path).of_kind("index")) == 1


def test_any_value_may_be_any_other(tmp_path: Path) -> None:
    """It is refused, or read with the types that the fields declare."""
    save(tmp_path)
    data = json.loads((tmp_path / NAME).read_text())
    del data["checksum"]
    refused = 0
    for path in places(data):
        for value in STRANGE:
            edited(tmp_path, changed(data, path, value))
            try:
                found = read_manifest(tmp_path)
                assert isinstance(found.tokens, int)
                assert isinstance(found.identity, dict)
                assert json.dumps(found.state) is not None
                assert found.nbytes is not None
            except SavedMemoryError:
                refused += 1
    assert refused > 200


@pytest.mark.parametrize("field", ["tokens", "segments", "id", "note", "extra"])
def test_a_field_that_is_missing_or_unknown(tmp_path: Path, field: str) -> None:
    save(tmp_path)
    data = json.loads((tmp_path / NAME).read_text())
    if field == "note":
        del data["note"]  # it may be absent
    elif data.pop(field, None) is None:
        data[field] = 1
    edited(tmp_path, data)
    if field == "note":
        assert read_manifest(tmp_path).note == {}
    else:
        with pytest.raises(SavedMemoryError, match="is damaged"):
            read_manifest(tmp_path)


def test_any_byte_may_be_any_other(tmp_path: Path) -> None:
    save(tmp_path)
    before, content = read_manifest(tmp_path), (tmp_path / NAME).read_bytes()
    chance, harmless = random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (tmp_path / NAME).write_bytes(damaged)
        try:
            assert read_manifest(tmp_path) == before  # white space, say
            harmless += 1
        except SavedMemoryError:
            pass
    assert harmless < 50


@pytest.mark.parametrize(
    ("note", "kept"),
    [
        ({}, {}),
        ({2: "a", 10: ["b", 1.5, None]}, {"2": "a", "10": ["b", 1.5, None]}),
        ({"a": ("x", {"y": True})}, {"a": ["x", {"y": True}]}),
    ],
)
def test_a_note_in_plain_types(tmp_path: Path, note: Any, kept: Any) -> None:
    assert plain("note", note) == kept
    save(tmp_path, note=plain("note", note))
    assert read_manifest(tmp_path).note == kept


@pytest.mark.parametrize(
    "note",
    [
        "text",
        3,
        None,
        {"a": Path("x")},
        {"a": float("nan")},
        {"a": "\ud800"},
        {(1,): 2},
        {"a": {1}},
    ],
)
def test_a_note_of_other_things_is_refused(note: Any) -> None:
    with pytest.raises(UnsupportedInputError, match=r"^note "):
        plain("note", note)


def test_a_note_that_holds_itself_is_refused() -> None:
    note: dict[str, Any] = {}
    note["note"] = note
    with pytest.raises(UnsupportedInputError, match=r"^note cannot be saved"):
        plain("note", note)


def test_differences_are_named_by_their_path() -> None:
    saved = {"weights": "a", "config": {"rope": {"theta": 1}, "layers": 2, "old": 0}}
    here = {"weights": "a", "config": {"rope": {"theta": 2}, "layers": 2}, "new": None}
    assert list(differences(saved, here)) == [("config.rope.theta", 1, 2), ("config.old", 0, None)]
    assert list(differences({"a": {"b": 1}}, {"a": None})) == [("a", {"b": 1}, None)]
