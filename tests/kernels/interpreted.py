"""Every Triton kernel against the reference; run as a program, under Triton's interpreter.

Whether Triton interprets is settled when it is imported, so this runs in a process of its own:
``TRITON_INTERPRET=1 python -m pytest tests/kernels/interpreted.py``. `test_triton.py` does so. On
a machine with CUDA the same tests run compiled, without the variable.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from inf_llm import kernels
from inf_llm.errors import SettingsError
from inf_llm.kernels import Band, Scoring, reference, triton_impl
from tests.kernels.shapes import BANDS, SHAPES, Shape, random_call
from tests.kernels.test_jointly import dense, random_sources

DEVICE = "cpu" if triton_impl.interpreted() else "cuda"
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
DTYPES = [torch.float32, torch.float16]  # the interpreter multiplies bfloat16 wrongly
if DEVICE == "cuda":
    DTYPES.append(torch.bfloat16)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_band = pytest.mark.parametrize("band", BANDS.values(), ids=BANDS)
every_scoring = pytest.mark.parametrize(
    "scoring", [Scoring(0.25), Scoring(0.25, softcap=3.0)], ids=["plain", "capped"]
)
PLAIN = Scoring(0.25)


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allocated holds NaN, so that an element never written is seen."""
    new_empty = Tensor.new_empty

    def poisoned(self: Tensor, *args: object, **kwargs: object) -> Tensor:
        fresh = new_empty(self, *args, **kwargs)
        return fresh.fill_(math.nan) if fresh.is_floating_point() else fresh

    monkeypatch.setattr(Tensor, "new_empty", poisoned)


def check_attend(
    got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor], dtype: torch.dtype
) -> None:
    (o, lse), (want_o, want_lse), near = got, want, TOLERANCE[dtype]
    assert (o.shape, o.dtype) == (want_o.shape, dtype)
    assert lse.dtype == torch.float32
    assert not o.isnan().any()
    sighted = want_lse > -math.inf
    torch.testing.assert_close(lse, want_lse, atol=near, rtol=near)
    torch.testing.assert_close(o[sighted].float(), want_o[sighted], atol=near, rtol=near)


@every_dtype
@every_scoring
@every_band
@every_shape
def test_attend(shape: Shape, band: Band | None, scoring: Scoring, dtype: torch.dtype) -> None:
    q, k, v = random_call(shape, dtype, DEVICE)
    want = reference.attend(q.float(), k.float(), v.float(), scoring, band)
    check_attend(triton_impl.attend(q, k, v, scoring, band), want, dtype)


@every_dtype
@every_scoring
@every_band
@every_shape
def test_received(shape: Shape, band: Band | None, scoring: Scoring, dtype: torch.dtype) -> None:
    """The lse is of a larger softmax, as it is in use; no query of it is blind."""
    q, k, _ = random_call(shape, dtype, DEVICE)
    lse = torch.linspace(2.0, 9.0, shape.Q, device=DEVICE).expand(shape.B, shape.H, shape.Q)
    got = triton_impl.received(q, k, lse, scoring, band)
    want = reference.received(q.float(), k.float(), lse.contiguous(), scoring, band)
    near = 3 * TOLERANCE[dtype]
    assert (got.shape, got.dtype) == (want.shape, torch.float32)
    torch.testing.assert_close(got, want, atol=near * float(want.max() + 1), rtol=near)


TILES = {  # several tiles of queries and keys, and keys in splits
    "tiles": (Shape(H=2, G=1, Q=150, K=200), Band(50, 0, 70)),
    "tiles, behind": (Shape(H=2, G=1, Q=150, K=200), Band(50, 60)),
    "splits, one query": (Shape(B=2, Q=1, K=1100), None),
    "splits, past the end": (Shape(Q=1, K=1100), Band(1099, 600)),
    "splits, window": (Shape(Q=9, K=700), Band(691, 0, 100)),
    "three heads of one": (Shape(H=6, G=2, Q=40, K=90, D=24, Dv=40), Band(50, 0, 33)),
}


@pytest.mark.parametrize(("shape", "band"), TILES.values(), ids=TILES)
def test_beyond_one_tile(shape: Shape, band: Band | None) -> None:
    q, k, v = random_call(shape, device=DEVICE)
    want = reference.attend(q, k, v, PLAIN, band)
    check_attend(triton_impl.attend(q, k, v, PLAIN, band), want, q.dtype)
    lse = want[1].masked_fill(want[1] == -math.inf, 0.0)
    mass = triton_impl.received(q, k, lse, PLAIN, band)
    wanted = reference.received(q, k, lse, PLAIN, band)
    torch.testing.assert_close(mass, wanted, atol=1e-4, rtol=1e-4)


def test_a_window_of_a_longer_buffer() -> None:
    """Strided views, and poison around them that must not be read."""
    shape = Shape(B=2, Q=30, K=60)
    q, k, v = random_call(shape, device=DEVICE)
    room = [torch.full((2, 2, 100, 16), math.nan, device=DEVICE) for _ in "kv"]
    for buffer, x in zip(room, (k, v), strict=True):
        buffer[:, :, 20:80] = x
    views = [buffer[:, :, 20:80] for buffer in room]
    loose = q.transpose(1, 2).contiguous().transpose(1, 2)
    band = Band(30, 0, 25)
    want = reference.attend(q, k, v, PLAIN, band)
    check_attend(triton_impl.attend(loose, views[0], views[1], PLAIN, band), want, q.dtype)
    mass = triton_impl.received(loose, views[0], want[1], PLAIN, band)
    wanted = reference.received(q, k, want[1], PLAIN, band)
    torch.testing.assert_close(mass, wanted, atol=1e-4, rtol=1e-4)


@every_dtype
@pytest.mark.parametrize("choices", [1, 3, 40])
@pytest.mark.parametrize("groups", [2, 4], ids=["per key head", "per query head"])
@pytest.mark.parametrize("queries", [1, 21])
def test_pages(queries: int, groups: int, choices: int, dtype: torch.dtype) -> None:
    """Pages in any order, some chosen twice, and the rest poisoned."""
    tokens, D, Dv, pages = 12, 18, 24, 50
    generator = torch.Generator().manual_seed(1)
    q, _, _ = random_call(Shape(B=2, Q=queries, D=D), dtype, DEVICE)
    k, v = (torch.randn(pages, tokens * w, generator=generator).to(dtype) for w in (D, Dv))
    table = torch.randint(pages, (2, groups, choices), generator=generator)
    unused = torch.ones(pages, dtype=torch.bool).index_fill(0, table.flatten(), False)
    k[unused], v[unused] = math.nan, math.nan
    k, v, table = k.to(DEVICE), v.to(DEVICE), table.to(DEVICE)
    gathered = (x[table].view(2, groups, choices * tokens, -1).float() for x in (k, v))
    want = reference.attend(q.float(), *gathered, PLAIN)
    check_attend(triton_impl.attend_pages(q, k, v, table, tokens, PLAIN), want, dtype)


def test_no_page() -> None:
    """Negative rows of the table are no pages; a query with none of them sees nothing."""
    q, _, _ = random_call(Shape(B=2, Q=3), device=DEVICE)
    k = torch.randn(5, 4 * 16, device=DEVICE)
    table = torch.tensor([[[1, -1, 3], [-1, -1, -1]]] * 2, device=DEVICE)
    o, lse = triton_impl.attend_pages(q, k, k, table, 4, PLAIN)
    kept = k[torch.tensor([1, 3], device=DEVICE)].view(1, 1, 8, 16).expand(2, 1, -1, -1)
    want, want_lse = reference.attend(q[:, :2], kept, kept, PLAIN)
    torch.testing.assert_close(o[:, :2], want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse[:, :2], want_lse, atol=1e-5, rtol=1e-5)
    assert (lse[:, 2:] == -math.inf).all()
    assert not o.isnan().any()


@every_dtype
@pytest.mark.parametrize("sink", [False, True], ids=["", "learned sink"])
@pytest.mark.parametrize("queries", [1, 3, 40])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_softmax_over_sources(count: int, queries: int, sink: bool, dtype: torch.dtype) -> None:
    """Up to three sources, of which one may be long enough to be split."""
    sources = random_sources(queries, dtype, torch.device(DEVICE), (700, 3, 0, 4))[:count]
    learned = torch.randn(6).to(DEVICE) if sink else None
    o, masses = kernels.attend_jointly(iter(sources), Scoring(0.4, kernel="triton"), learned)
    want, shares = dense(sources, Scoring(0.4), learned)
    near = 3 * TOLERANCE[dtype]
    assert (o.shape, o.dtype) == (want.shape, dtype)
    torch.testing.assert_close(o.double(), want, atol=near, rtol=near)
    assert [mass is not None for mass in masses] == [source.needs_mass for source in sources]
    for mass, share in zip(masses, shares, strict=True):
        if mass is not None:
            torch.testing.assert_close(mass.double(), share, atol=near, rtol=near)


@pytest.mark.parametrize("size", [30.0, 300.0])
def test_large_scores(size: float) -> None:
    q, k, v = random_call(Shape(Q=40, K=40), device=DEVICE)
    scoring = Scoring(size)
    want = reference.attend(q, k, v, scoring, Band(0))
    o, lse = triton_impl.attend(q, k, v, scoring, Band(0))
    torch.testing.assert_close(lse, want[1], atol=1e-2, rtol=1e-5)
    torch.testing.assert_close(o, want[0], atol=1e-3, rtol=1e-3)


def test_through_the_door() -> None:
    q, k, v = random_call(SHAPES["grouped"], device=DEVICE)
    named = Scoring(0.25, kernel="triton")
    check_attend(kernels.attend(q, k, v, named), reference.attend(q, k, v, PLAIN), q.dtype)
    many = random_call(Shape(Q=300, K=20), device=DEVICE)
    kernels.received(many[0], many[1], torch.zeros(1, 4, 300, device=DEVICE), named)
    with pytest.raises(SettingsError, match="'triton' takes heads of at most 128 dimensions"):
        kernels.attend(*random_call(Shape(D=136), device=DEVICE), named)
    with pytest.raises(SettingsError, match="'triton' does not compute in float64"):
        kernels.attend(q.double(), k.double(), v.double(), named)
    with torch.enable_grad():  # computed by the reference
        q.requires_grad_()
        kernels.attend(q, k, v, named)[0].sum().backward()
    assert q.grad is not None


def test_tiles_fit_every_gpu() -> None:
    """What a program keeps in shared memory, on Hopper and on the smallest GPU in use."""
    for room in (227 << 10, 163 << 10, 99 << 10):
        for dtype in DTYPES:
            for width in (64, 128, 256):
                if width > triton_impl._WIDEST[dtype]:
                    continue
                for rows in (1, 8, 40, 4096):
                    tiles = triton_impl._tiles(rows, width, dtype, room)
                    size = dtype.itemsize * (2 if dtype == torch.float32 else 1)
                    kept = tiles["BLOCK_M"] + 2 * tiles["num_stages"] * tiles["BLOCK_N"]
                    assert kept * width * size <= room
