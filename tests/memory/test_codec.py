"""Pages come back from their planes as they were, by every codec; one from outside is a row too."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from inf_llm.choice import Choice
from inf_llm.memory.codec import Codec, PageShape, Plane, Planes
from inf_llm.variants import CODEC
from tests.layers import feed, make_memory_layer, random_qkv

SHAPE = PageShape(heads=3, tokens=4, key_width=5, value_width=2, dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CODEC.own)
def test_there_and_back(name: str, dtype: torch.dtype) -> None:
    codec: Codec = Choice(name).build(CODEC, PageShape(3, 4, 5, 2, dtype))
    k, v = torch.randn(7, 4, 5).to(dtype), torch.randn(7, 4, 2).to(dtype)
    planes = codec.encode(k, v)
    for rows, plane in zip(planes, codec.planes, strict=True):
        assert (rows.shape, rows.dtype) == ((7, plane.width), plane.dtype)
    assert codec.block_bytes == 3 * sum(rows[0].nbytes for rows in planes)
    got_k, got_v = codec.decode(planes)
    assert got_k.dtype == got_v.dtype == dtype
    near = {"raw": 0, "int4": 0.3}.get(name, 0.1)
    torch.testing.assert_close(got_k, k, atol=near, rtol=near)
    torch.testing.assert_close(got_v, v, atol=near, rtol=near)


def test_bytes_of_a_block() -> None:
    sizes = (SHAPE, 3 * 4 * 7 * 4), (PageShape(1, 8, 16, 16, torch.bfloat16), 8 * 32 * 2)
    for shape, size in sizes:
        assert Choice("raw").build(CODEC, shape).block_bytes == size


class Half(Codec):
    """Everything in one plane of half precision, times a power of two."""

    @dataclass(frozen=True)
    class Settings:
        factor: float = 1.0

    def __init__(self, shape: PageShape, factor: float) -> None:
        super().__init__(shape)
        self._factor = factor
        width = shape.tokens * (shape.key_width + shape.value_width)
        self.planes = (Plane(width, torch.float16),)

    def encode(self, k: Tensor, v: Tensor) -> Planes:
        return ((torch.cat((k, v), 2) * self._factor).half().flatten(1),)

    def decode(self, planes: Planes) -> tuple[Tensor, Tensor]:
        both = planes[0].to(self.shape.dtype).unflatten(1, (self.shape.tokens, -1)) / self._factor
        k, v = both.split([self.shape.key_width, self.shape.value_width], 2)
        return k, v


@pytest.mark.parametrize("perhead", [False, True], ids=["together", "perhead"])
@pytest.mark.parametrize("slots", [False, True], ids=["tier", "cache"])
def test_a_codec_from_outside(slots: bool, perhead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It halves what is kept, and little changes."""
    monkeypatch.setattr(CODEC, "_added", {"half": CODEC._own["raw"]})
    CODEC.add("half", Half)
    qkv, feeds = random_qkv(150, rows=2), [100, 25] + [1] * 25
    settings = {"codec": {"name": "half", "factor": 0.5}, "perhead": perhead}
    half = make_memory_layer(slots=slots, **settings)
    plain = make_memory_layer(slots=slots, perhead=perhead)
    got, want = feed(half, qkv, feeds), feed(plain, qkv, feeds)
    assert 0 < (got - want).abs().max() < 5e-3
    assert 2 * half.stats().host_bytes == plain.stats().host_bytes
