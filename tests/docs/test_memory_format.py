"""docs/memory-format.md: its program reads what is saved, and its rules give the same checksums."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from inf_llm import variants
from inf_llm.generation import Session
from inf_llm.hf.saving import TOKENS
from inf_llm.memory.codec import PageShape
from inf_llm.saved import tree
from inf_llm.saved.manifest import Manifest
from inf_llm.saved.seal import SEAL
from tests.docs.pages import ROOT, blocks, prose
from tests.hf.tiny import character_tokenizer, tiny_patched, tokens

PAGE = ROOT / "docs" / "memory-format.md"


@pytest.fixture(scope="module")
def program() -> Any:
    """The page's program as a module."""
    (block,) = (each for each in blocks(PAGE) if each.name == "read_memory.py")
    assert len(block.code.splitlines()) <= 60
    module = ModuleType("read_memory")
    exec(compile(block.code, "read_memory.py", "exec"), module.__dict__)
    return module


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A session that was saved twice, and its folder."""
    folder = tmp_path_factory.mktemp("memory")
    session = Session(tiny_patched().to(request.param), character_tokenizer())
    for part in range(2):
        session.read(tokens(100, seed=part)[0].tolist())
        session.save(folder)
    return session, folder


def test_it_reads_every_block_of_every_store(program: Any, saved: Any) -> None:
    session, folder = saved
    files = [load_file(file) for file in sorted(folder.glob("blocks-*"))]
    assert len(files) == 2
    for name, layer in enumerate(session.cache.memories):
        store = layer.rows.members[0].memory.store
        count = sum(len(file[str(name)]) for file in files)
        for block in range(count):
            pages = torch.arange(block * store.shape.heads, (block + 1) * store.shape.heads)
            found = program.read_block(folder, str(name), block)
            for ours, its in zip(store.codec.decode(store.tier.read(pages)), found, strict=True):
                assert ours.dtype == its.dtype
                assert torch.equal(ours, its)
        with pytest.raises(SystemExit, match="no such block"):
            program.read_block(folder, str(name), count)


def test_control_blocks_differ(program: Any, saved: Any) -> None:
    one, other = (program.read_block(saved[1], "0", block)[0] for block in (0, 1))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("group", [None, 8])
@pytest.mark.parametrize("codec", ["int8", "int4"])
def test_codes_are_decoded_as_the_page_says(codec: str, group: int | None) -> None:
    t, k, v = 16, 8, 24
    made = variants.CODEC.get(codec)(PageShape(1, t, k, v, torch.float32), group)
    planes = made.encode(torch.randn(1, t, k), torch.randn(1, t, v))
    codes, scales = planes[0][0], planes[1][0].float()
    sizes, g, h = (t * k, t * v), group or t, group or v
    groups = t // g * k, t * (v // h)
    if codec == "int8":
        found = codes.float().split(sizes)
        beside = [(scale, torch.zeros(1)) for scale in scales.split(groups)]
    else:
        halves = codes.split([size // 2 for size in sizes])
        found = [torch.cat((half & 15, half >> 4)).float() for half in halves]
        parts = scales.split([groups[0], groups[0], groups[1], groups[1]])
        beside = [(parts[0], parts[1]), (parts[2], parts[3])]
    cuts = ((t // g, g, k), (t // g, 1, k)), ((t, v // h, h), (t, v // h, 1))
    for part, pair, (cut, of), expected in zip(
        found, beside, cuts, made.decode(planes), strict=True
    ):
        scale, least = (each.view(of) if len(each) > 1 else each for each in pair)
        assert torch.equal((part.view(cut) * scale + least).view_as(expected[0]), expected[0])


def test_it_is_a_program(saved: Any, tmp_path: Path) -> None:
    (block,) = (each for each in blocks(PAGE) if each.name == "read_memory.py")
    (tmp_path / block.name).write_text(block.code)
    command = [sys.executable, str(tmp_path / block.name), str(saved[1]), "1", "3"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.startswith("200 tokens\nkeys (2, 8, 16)")


def test_checksums_are_made_as_the_page_says(saved: Any) -> None:
    session, folder = saved
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    state = load_file(folder / "state-000002.safetensors")
    checksum = manifest.pop("checksum")
    assert hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest() == checksum
    manifest["segments"] = []
    seal = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).digest()
    assert bytes(state[SEAL].tolist()) == seal
    assert state[TOKENS].tolist() == session.ids


def test_the_page_has_every_field() -> None:
    page = prose(PAGE)
    fields = [*Manifest.__dataclass_fields__, "checksum"]
    assert [field for field in fields if f"| `{field}` |" not in page] == []
    assert [kind for kind in tree._UNPACKED if f'`{{"{kind}": ' not in page] == []


def test_the_page_has_every_field_of_the_identity(saved: Any) -> None:
    manifest = json.loads((saved[1] / "manifest.json").read_text(encoding="utf-8"))
    page = prose(PAGE)
    assert [field for field in manifest["identity"] if f"| `{field}` |" not in page] == []
    facts = [field for store in manifest["stores"].values() for field in store]
    assert [field for field in facts if f"`{field}`" not in page] == []
