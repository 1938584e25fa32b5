"""Digests against their definition."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inf_llm.saved import digest as module
from inf_llm.saved.digest import Digest, digesting


@pytest.mark.parametrize("length", [0, 1, 99, 100, 101, 200, 1234])
@pytest.mark.parametrize("step", [1, 7, 100, 5000])
def test_of_a_stream_and_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, step: int
) -> None:
    monkeypatch.setattr(module, "PIECE", 100)
    data = bytes(at % 251 for at in range(length))
    pieces = [hashlib.sha256(data[at : at + 100]).digest() for at in range(0, length, 100)]
    wanted = hashlib.sha256(b"".join(pieces)).hexdigest()
    stream = Digest()
    for at in range(0, length, step):
        stream.update(data[at : at + step])
    assert stream.hexdigest() == wanted
    (tmp_path / "file").write_bytes(data)
    with ThreadPoolExecutor(3) as threads:
        assert digesting(tmp_path / "file", threads)() == wanted
