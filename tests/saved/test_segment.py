"""Segments: files of safetensors, written as a stream and mapped."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from inf_llm.errors import SavedMemoryError, UnsupportedInputError
from inf_llm.saved.segment import Rows, map_segment, write_segment

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def some(dtype: torch.dtype, shape: tuple[int, ...] = (3, 5)) -> torch.Tensor:
    return (torch.rand(shape) * 7).to(dtype)


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def written(path: Path, tensors: dict[str, torch.Tensor]) -> int:
    return write_segment(path, {name: Rows.of(each) for name, each in tensors.items()})[0]


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=4),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3).map(tuple)),
        max_size=5,
    )
)
def test_safetensors_itself_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("segment") / "file"
    tensors = {name: some(dtype, shape) for name, (dtype, shape) in wanted.items()}
    size = written(path, tensors)
    assert equal(load_file(path), tensors)
    assert equal(map_segment(path, size), tensors)


def test_pieces_become_one_tensor(tmp_path: Path) -> None:
    rows = some(torch.float16, (7, 3))
    size, digest = write_segment(
        tmp_path / "file", {"a": Rows(rows.dtype, (7, 3), lambda: rows.split(2))}
    )
    assert equal(load_file(tmp_path / "file"), {"a": rows})
    assert size == (tmp_path / "file").stat().st_size
    once = hashlib.sha256((tmp_path / "file").read_bytes()).digest()
    assert digest == hashlib.sha256(once).hexdigest()


def test_files_of_safetensors_can_be_mapped(tmp_path: Path) -> None:
    tensors = {"a": some(torch.float32), "b": some(torch.float32, (2,))}
    save_file(tensors, tmp_path / "file")
    assert equal(map_segment(tmp_path / "file", (tmp_path / "file").stat().st_size), tensors)


def test_a_file_is_mapped_and_not_copied(tmp_path: Path) -> None:
    rows = torch.zeros(64, 64)
    size = written(tmp_path / "file", {"a": rows})
    mapped = map_segment(tmp_path / "file", size)["a"]
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs a system that lists what is mapped")
    assert str(tmp_path / "file") in maps.read_text()
    assert mapped.data_ptr() % 8 == 0


@pytest.mark.skipif(os.name != "posix", reason="needs a system that knows owners")
def test_a_file_is_for_its_owner(tmp_path: Path) -> None:
    written(tmp_path / "file", {"a": some(torch.int8)})
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        written(tmp_path / "file", {"a": some(torch.int8)})
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_dtype_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedInputError, match="complex64 cannot be saved"):
        written(tmp_path / "file", {"a": torch.zeros(2, dtype=torch.complex64)})


def test_another_length_is_refused(tmp_path: Path) -> None:
    size = written(tmp_path / "file", {"a": some(torch.int8)})
    with pytest.raises(SavedMemoryError, match=rf"has {size} bytes instead of {size + 1}"):
        map_segment(tmp_path / "file", size + 1)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        map_segment(tmp_path / "file", 3)


def test_a_file_that_vanishes_before_it_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`reading` tries again on this error."""
    size = written(tmp_path / "file", {"a": some(torch.int8)})
    real = torch.from_file

    def late(*args: Any, **options: Any) -> Any:
        (tmp_path / "file").unlink()
        return real(*args, **options)

    monkeypatch.setattr(torch, "from_file", late)
    with pytest.raises(FileNotFoundError):
        map_segment(tmp_path / "file", size)


def _file(head: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def _row(**changed: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | changed}


HEADS = [
    b"",
    b"123",
    _file(_row(), length=2**63),
    _file(_row(), length=10**9),
    _file(b"\xff\xfe"),
    _file(b"[" * 100_000),
    _file([]),
    _file({"a": 3}),
    _file({"a": []}),
    _file({}),
    _file(_row(dtype="F99")),
    _file(_row(dtype=[])),
    _file(_row(shape=[5])),
    _file(_row(shape=[-1, -4])),
    _file(_row(shape=[2.0, 2.0])),
    _file(_row(shape="4")),
    _file(_row(shape=[10**30])),
    _file(_row(data_offsets=[0, 17])),
    _file(_row(data_offsets=[0, 12], shape=[3])),
    _file(_row(data_offsets=[-16, 0])),
    _file(_row(data_offsets=[16, 0])),
    _file(_row(data_offsets=[0])),
    _file(_row(data_offsets=["0", "16"])),
    _file(_row(data_offsets=[1e9, 1e9 + 16])),
    _file(_row(), data=bytes(15)),
    _file(_row(), data=bytes(24)),
]


@pytest.mark.parametrize("content", HEADS, ids=range(len(HEADS)))
def test_a_damaged_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(SavedMemoryError, match=r"its header is damaged|cannot be mapped"):
        map_segment(tmp_path / "file", len(content))


def test_control_a_header_as_it_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content := _file(_row()))
    assert torch.equal(map_segment(tmp_path / "file", len(content))["a"], torch.zeros(4))


def test_any_byte_of_a_header_may_be_any_other(tmp_path: Path) -> None:
    """It is refused, or gives tensors that lie in the file."""
    size = written(tmp_path / "whole", {"a": some(torch.float32), "b": some(torch.uint8)})
    content, chance = (tmp_path / "whole").read_bytes(), random.Random(0)
    head = 8 + int.from_bytes(content[:8], "little")
    refused = 0
    for _ in range(300):
        changed = bytearray(content)
        changed[chance.randrange(head)] = chance.randrange(256)
        (tmp_path / "file").write_bytes(changed)
        try:
            found = map_segment(tmp_path / "file", size)
            assert sum(tensor.nbytes for tensor in found.values()) <= size
        except SavedMemoryError:
            refused += 1
    assert refused > 200
