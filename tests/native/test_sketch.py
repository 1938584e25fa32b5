"""Every variant finds what torch finds; without any, torch does, and nothing is made or written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from inf_llm.memory import int8_index
from inf_llm.memory.index import TorchIndex
from inf_llm.memory.int8_index import Int8Index
from inf_llm.native import sketch as native

ROOT = Path(__file__).parents[2]
fresh = native._functions.__wrapped__


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def variant(
    request: pytest.FixtureRequest, extension: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The functions for one kind of processor, in use."""
    functions = extension.variants.get(request.param)
    if functions is None:
        pytest.skip(f"this processor cannot run {request.param}")
    monkeypatch.setattr(native, "_functions", lambda: functions)
    return functions


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.usefixtures("variant")
@pytest.mark.parametrize("width", [1, 15, 16, 63, 64, 130, 512, 1000])
@pytest.mark.parametrize(("vectors", "queries"), [(1, 1), (2, 6)])
def test_products_are_those_of_the_integers(
    width: int, vectors: int, queries: int, generator: torch.Generator
) -> None:
    """Queries of whole numbers up to 127 are their own codes."""
    query = torch.randint(-127, 128, (3, queries, width), generator=generator)
    query[..., 0] = 127
    codes = torch.randint(-127, 128, (48, vectors, width), generator=generator, dtype=torch.int8)
    codes[:2] = torch.tensor([127, -127], dtype=torch.int8)[:, None, None]
    centre = torch.randn(vectors, 1, width, generator=generator)
    answer = native.asked(query.float(), centre, codes.flatten(1), 1, 254, 0.5, 2.0)
    assert answer is not None
    products, facts = answer
    own = codes.long().repeat_interleave(queries // vectors, 1)
    assert torch.equal(products[0].long(), torch.einsum("nxw,bxw->nxb", query, own))
    slack, step, common = facts
    torch.testing.assert_close(slack, query.float().norm(dim=2) * 0.5)  # the codes leave nothing
    torch.testing.assert_close(step, torch.ones_like(step))
    wide = centre[:, 0].repeat_interleave(queries // vectors, 0)
    torch.testing.assert_close(common, (query * wide).sum(2), atol=0.05, rtol=1e-4)


@pytest.mark.usefixtures("variant")
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("vectors", "queries", "width"), [(1, 1, 512), (2, 6, 64), (3, 3, 7), (1, 2, 1100)]
)
def test_finds_what_torch_finds(
    vectors: int,
    queries: int,
    width: int,
    dtype: torch.dtype,
    several: bool,
    generator: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With blocks behind the last full group; the widest in two parts, and large enough to share
    among threads."""
    monkeypatch.setattr(int8_index, "_SKETCH_FROM", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    total = 1003
    blocks = (torch.randn(vectors, total, width, generator=generator) + 1).to(dtype)
    asked = torch.randn(4, queries, width, generator=generator)
    index, plain = Int8Index(), TorchIndex()
    index.put(torch.arange(total), blocks)
    plain.put(torch.arange(total), blocks.float())
    if several:
        found = index.search_several(asked, 9, total)
    else:
        found = [index.search(query[None], 9, total, None) for query in asked]
    for query, (numbers, scores) in zip(asked, found, strict=True):
        wanted = plain.search(query[None], 9, total, None)
        assert torch.equal(numbers, wanted[0])
        torch.testing.assert_close(scores, wanted[1])


def test_other_numbers_are_left_to_torch(variant: ModuleType) -> None:
    blocks = torch.zeros(1, 16, 4, dtype=torch.float16)
    query, scales = torch.zeros(1, 4), torch.ones(1, 1)
    codes, centre = torch.zeros(16, 4, dtype=torch.int8), torch.zeros(1, 1, 4)
    found = native.find(query, centre, codes, scales, 16, 1, 254, 0.0, 0.0, blocks, 2, 16)
    assert found is None


@pytest.mark.parametrize("function", ["ask", "best", "find"])
def test_wrong_arguments_are_an_error(variant: ModuleType, function: str) -> None:
    with pytest.raises(TypeError, match=function):
        getattr(variant, function)(1)


def test_the_fastest_is_in_use(extension: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inf_llm.native._sketch", extension)
    monkeypatch.setattr("inf_llm.native._sketch", extension, raising=False)
    monkeypatch.setattr(native, "_functions", fresh)
    assert native.in_use() == f"C ({next(iter(extension.variants))})"
    monkeypatch.setenv("INF_LLM_NATIVE", "0")
    assert native.in_use() == "torch"


def test_torch_searches_where_it_is_not_built(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    monkeypatch.delattr("inf_llm.native._sketch", raising=False)
    monkeypatch.setitem(sys.modules, "inf_llm.native._sketch", None)
    monkeypatch.setattr(native, "_functions", fresh)
    assert native.in_use() == "torch"
    monkeypatch.setattr(int8_index, "_SKETCH_FROM", 1)
    index, plain = Int8Index(), TorchIndex()
    blocks = torch.randn(1, 100, 8, generator=generator)
    for each in (index, plain):
        each.put(torch.arange(100), blocks)
    query = torch.randn(1, 1, 8, generator=generator)
    found, wanted = (each.search(query, 5, 100, None)[0] for each in (index, plain))
    assert torch.equal(found, wanted)


SEARCH = """
import sys, torch
from inf_llm.memory.int8_index import Int8Index
done = []
def watch(event, arguments):
    made = event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.mkdir", "os.rename")
    if made or event == "open" and set(str(arguments[1])) & set("wax+"):
        done.append((event, arguments))
index = Int8Index()
index.put(torch.arange(2500), torch.randn(1, 2500, 8))
sys.addaudithook(watch)
index.search(torch.randn(1, 1, 8), 5, 2500, None)
print(done)
"""


@pytest.mark.parametrize("wanted", ["0", "1"])
def test_a_search_starts_nothing_and_writes_nothing(tmp_path: Path, wanted: str) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "INF_LLM_NATIVE": wanted,
    }
    run = subprocess.run(
        [sys.executable, "-c", SEARCH], env=environment, check=True, capture_output=True, text=True
    )
    assert run.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []
