"""inf_llm/native/loops.py: every variant computes what torch computes in float64."""

from __future__ import annotations

from contextlib import nullcontext
from types import ModuleType

import pytest
import torch
from torch import Tensor

from inf_llm.native import loops


@pytest.fixture(params=["avx2", "baseline"], autouse=True)
def variant(
    request: pytest.FixtureRequest, extension: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The functions for one kind of processor, in use."""
    functions: ModuleType | None = extension.variants.get(request.param)
    if functions is None:
        pytest.skip(f"this processor cannot run {request.param}")
    monkeypatch.setattr(loops, "functions", lambda: functions)
    return functions


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def stated(pieces: list[loops.Piece], scale: float) -> tuple[Tensor, Tensor]:
    """Softmax attention in float64, head by head."""
    H = pieces[0][0].shape[1]
    scores, values = [], []
    for q, k, v in pieces:
        shared = H // k.shape[1]
        wide_k, wide_v = (x.double().repeat_interleave(shared, 1) for x in (k, v))
        scores.append((q.double() @ wide_k.transpose(2, 3) * scale)[:, :, 0])
        values.append(wide_v)
    weights = torch.cat(scores, 2).softmax(2)
    return weights[:, :, None] @ torch.cat(values, 2), weights


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("heads", "groups"), [(9, 3), (4, 4), (7, 1)])
@pytest.mark.parametrize(("width", "v_width"), [(64, 64), (128, 96), (20, 7), (1, 3)])
def test_attention_to_pieces(rows: int, heads: int, groups: int, width: int, v_width: int) -> None:
    pieces = [
        (
            normal(rows, heads, 1, width) * size,
            normal(rows, groups, keys, width),
            normal(rows, groups, keys, v_width),
        )
        for keys, size in ((33, 1), (0, 1), (1, 3), (70, 2))
    ]
    wanted = stated(pieces, 0.3)
    for got, want in zip(loops.attend(pieces, 0.3), wanted, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=2e-5, atol=2e-6)


def test_pieces_with_other_numbers_of_key_heads() -> None:
    """As where every query head has blocks of its own, beside sinks for key heads."""
    q = normal(2, 6, 1, 16)
    pieces = [(q, normal(2, n, 13, 16), normal(2, n, 13, 16)) for n in (6, 2, 1)]
    for got, want in zip(loops.attend(pieces, 1.0), stated(pieces, 1.0), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=2e-5, atol=2e-6)


def test_views_of_larger_tensors() -> None:
    """Keys and values as the window and the blocks hold them: slices, and heads that lie apart."""
    k, v = normal(2, 50, 3, 24).transpose(1, 2), normal(2, 3, 60, 24)[:, :, 5:55]
    q = normal(2, 1, 6, 24).transpose(1, 2)
    apart = normal(2, 3, 24, 50).transpose(2, 3)  # the numbers of a head lie apart
    pieces = [(q, k, v), (q, apart, v)]
    for got, want in zip(loops.attend(pieces, 1.0), stated(pieces, 1.0), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("size", [1.0, 40.0, 1e4, 1e30])
def test_large_scores(size: float) -> None:
    q, k, v = normal(1, 2, 1, 16) * size, normal(1, 1, 90, 16), normal(1, 1, 90, 16)
    o, weights = loops.attend([(q, k, v)], 1.0)
    torch.testing.assert_close(weights.sum(2), torch.ones(1, 2))
    torch.testing.assert_close(o.double(), stated([(q, k, v)], 1.0)[0], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("keys", [1, 15, 16, 17, 70])
def test_keys_and_values_in_bfloat16(keys: int) -> None:
    q, k, v = normal(2, 6, 1, 40), normal(2, keys, 2, 40).transpose(1, 2), normal(2, 2, keys, 30)
    pieces = [tuple(x.bfloat16() for x in (q, part, v)) for part in (k, k + 1)]
    assert all(loops.attends(*piece) for piece in pieces)
    for got, want in zip(loops.attend(pieces, 0.2), stated(pieces, 0.2), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=2e-5, atol=2e-6)


def test_nan_stays_nan() -> None:
    q, k, v = normal(1, 2, 1, 16), normal(1, 2, 9, 16), normal(1, 2, 9, 16)
    k[0, 1, 4, 3] = torch.nan
    o, _ = loops.attend([(q, k, v)], 1.0)
    assert o[0, 1].isnan().all()
    assert o[0, 0].isfinite().all()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 16])
@pytest.mark.parametrize(("n", "m"), [(5, 64), (130, 100), (3, 7)])
def test_product_with_int8_rows(rows: int, n: int, m: int) -> None:
    x, scales = normal(rows, m), normal(n).abs()
    codes = torch.arange(n * m).mul(37).remainder(255).sub(127).to(torch.int8).view(n, m)
    want = x.double() @ codes.T.double() * scales
    got = loops.int8_product(x, codes, scales)
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-3)
    alone = torch.cat([loops.int8_product(row[None], codes, scales) for row in x])
    assert torch.equal(got, alone), "a row depends on the rows beside it"


@pytest.mark.parametrize("queries", [1, 4])
@pytest.mark.parametrize(("heads", "groups"), [(9, 3), (4, 4), (6, 1)])
@pytest.mark.parametrize("rows", [1, 2])
def test_scores_of_pages(rows: int, heads: int, groups: int, queries: int) -> None:
    pages, blocks, width = 4, 11, 40
    q = normal(rows, heads, queries, width)
    shape = rows, groups, blocks, pages, width
    codes = (normal(*shape) * 60).clamp(-127, 127).to(torch.int8)
    steps = normal(rows, groups, 20).abs()[:, :, 3 : 3 + blocks]
    wide = codes.double().repeat_interleave(heads // groups, 1)
    products = torch.einsum("bhqd,bhspd->bhqsp", q.double(), wide)
    want = products.amax(-1) * steps.double().repeat_interleave(heads // groups, 1)[:, :, None]
    got = loops.page_scores(q, codes.flatten(2, 3), steps)
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("lead", [(1,), (3,), (2, 1, 1), (2, 1, 3)])
@pytest.mark.parametrize(("width", "start", "pairs"), [(64, 0, 32), (20, 4, 3), (6, 1, 1)])
def test_rotation(width: int, start: int, pairs: int, lead: tuple[int, ...]) -> None:
    x, angles = normal(2, 3, 5, width).transpose(1, 2), normal(*lead, pairs).double()
    cosines = torch.cat((angles.cos(), angles.cos()), -1).float()
    sines = torch.cat((-angles.sin(), angles.sin()), -1).float()
    want, end = x.double(), start + 2 * pairs
    turned = torch.view_as_complex(want[..., start:end].unflatten(-1, (2, -1)).mT.contiguous())
    turned = turned * torch.polar(torch.ones_like(angles), angles)
    want[..., start:end] = torch.view_as_real(turned).mT.flatten(-2)
    got = loops.rotate(x, cosines, sines, start)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)
    assert torch.equal(got[..., :start], x[..., :start])


@pytest.mark.parametrize("n", [1, 7, 8, 130])
def test_softmax(n: int) -> None:
    x = (normal(3, n, 4) * 30).transpose(1, 2)
    x[1, 2, n // 2 :] = -torch.inf
    x[1, 2, 0] = 1.0
    before = x.clone()
    got = loops.softmax(x)
    torch.testing.assert_close(got.double(), x.double().softmax(-1), rtol=2e-5, atol=1e-30)
    assert (got[x == -torch.inf] == 0).all()
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_copies_of_rows(dtype: torch.dtype) -> None:
    x, rows = (
        (normal(9, 13) * 40).abs().to(dtype),
        torch.tensor([[8, 3, 3, 0], [1, 1, 1, 1]]).T[:, 0],
    )
    assert torch.equal(loops.gather(x, rows), x[rows])
    assert loops.gather(x, rows[:0]).shape == (0, 13)


@pytest.mark.parametrize("row", [-1, 9])
def test_a_row_that_is_not_there(row: int) -> None:
    with pytest.raises(IndexError, match=f"row {row} where there are 9"):
        loops.gather(normal(9, 13), torch.tensor([0, row]))


def test_other_dtypes_are_no_numbers_of_these() -> None:
    """A control: numbers of another dtype would be read as float32."""
    q, k = normal(1, 2, 1, 16), normal(1, 2, 9, 16)
    with pytest.raises(AssertionError, match="float32 or bfloat16 is needed"):
        loops.attend([(q, k.double(), k)], 1.0)


def test_heads_that_are_too_wide() -> None:
    """`attends` and the C code state the same limit."""
    for width in (loops.MAX_WIDTH, loops.MAX_WIDTH + 1):
        q, k = normal(1, 1, 1, width), normal(1, 1, 2, width)
        fits = width <= loops.MAX_WIDTH
        assert loops.attends(q, k, k) == fits
        with nullcontext() if fits else pytest.raises(ValueError, match="wider than 1024"):
            loops.attend([(q, k, k)], 1.0)
