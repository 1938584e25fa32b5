"""index.py and scale.py: what they refuse before any work, and a small comparison of indexes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmark import index, scale


@pytest.mark.parametrize("main", [index.main, scale.main], ids=["index", "scale"])
@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ("many", "--tokens 'many' is not a number of tokens"),
        ("16k,32k", "--tokens '16k,32k' is not a number"),
        ("0", "--tokens '0' is not a number of tokens"),
    ],
)
def test_wrong_sizes(
    main: Callable[..., int], tokens: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--tokens", tokens]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("main", [index.main, scale.main], ids=["index", "scale"])
def test_a_folder_that_is_not_there(
    main: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--tokens", "16k", "--json", str(tmp_path / "no" / "x.json")]) == 2
    assert "cannot be written (No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "words", "says"),
    [
        (index.main, ["--layer", "99"], "--layer 99 is out of range: -5 to 4"),
        (index.main, ["--topk", "0"], "--topk 0 is out of range: 1 to 512"),
        (scale.main, ["--threads", "0"], "--threads 0 is out of range: 1 to"),
        (scale.main, ["--threads", "99999"], "--threads 99999 is out of range: 1 to"),
        (scale.main, ["--seed", "-1"], "--seed -1 is out of range"),
        (scale.main, ["--json", "."], "cannot be written (Is a directory)"),
    ],
)
def test_out_of_range(
    main: Callable[..., int], words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--tokens", "16k", *words]) == 2
    assert says in capsys.readouterr().err


def test_too_few_tokens_to_compare_indexes(capsys: pytest.CaptureFixture[str]) -> None:
    assert index.main(["--tokens", "4k"]) == 2
    assert "at least 8192" in capsys.readouterr().err


def test_exact_indexes_find_the_same() -> None:
    pytest.importorskip("faiss")
    vectors = torch.randn(2, 4096, 16, generator=torch.Generator().manual_seed(0))
    rows = {
        row.index: row for row in index.compare(vectors, vectors[:, :32].mT.reshape(-1, 2, 16), 8)
    }
    assert rows["torch"].recall == rows["faiss"].recall == 1
    assert 0 < rows["faiss, inverted"].recall <= 1
    assert rows["faiss"].mebibytes == 2 * 4096 * 16 * 4 / 2**20
