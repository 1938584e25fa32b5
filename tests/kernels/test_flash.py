"""The adapters of FlashAttention, over a stand-in that does what its packages document."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from inf_llm import kernels
from inf_llm.errors import SettingsError
from inf_llm.kernels import Band, Scoring, flash_attn, reference, varlen
from inf_llm.kernels.flash import FlashKernel, Window
from tests.kernels.shapes import BANDS, SHAPES, Shape, check_call, random_call

SCORING = Scoring(0.25)
MORE_BANDS = {
    **BANDS,
    "behind, none past": Band(40, 12),
    "short of the end": Band(5, 0, 6),
    "keys of one query": Band(13, 3, 4),
}


def attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: Window
) -> tuple[Tensor, Tensor]:
    """What FlashAttention 2 says of itself: windows are counted from the ends of both, a negative
    side has no limit, a query that sees nothing is garbage."""
    q, k, v = (x.transpose(1, 2).double() for x in (q, k, v))
    Q, K = q.shape[2], k.shape[2]
    assert q.shape[3] == k.shape[3] == v.shape[3]
    assert q.shape[3] % 8 == 0
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    left, right = window
    place, key = torch.arange(Q)[:, None] + K - Q, torch.arange(K)
    seen = torch.ones(Q, K, dtype=torch.bool)
    if left >= 0:
        seen &= key >= place - left
    if right >= 0:
        seen &= key <= place + right
    scores = (q @ k.mT * scale).masked_fill(~seen, -math.inf)
    o = scores.softmax(-1) @ v  # nan where nothing is seen
    lse = scores.logsumexp(-1).masked_fill(~seen.any(1), math.inf)
    return o.transpose(1, 2).float(), lse.float()


def packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: Any,
    scale: float,
    window_size: Window = (-1, -1),
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """`varlen_attn`: rows one behind the other."""
    assert return_aux.lse
    assert enable_gqa == (query.shape[1] != key.shape[1])
    parts = []
    for row in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[row] : cu_seq_q[row + 1]]
        k, v = (x[cu_seq_k[row] : cu_seq_k[row + 1]] for x in (key, value))
        assert (len(q), len(k)) == (max_q, max_k)
        parts.append(attention(q[None], k[None], v[None], scale, window_size))
    return torch.cat([o[0] for o, _ in parts]), torch.cat([lse[0] for _, lse in parts], 1)


def flash_attn_func(
    q: Tensor, k: Tensor, v: Tensor, softmax_scale: float, window_size: Window, **more: Any
) -> tuple[Tensor, ...]:
    """Version 2 gives a third thing, version 3 does not."""
    assert more == {"return_attn_probs": True}
    return (*attention(q, k, v, softmax_scale, window_size), torch.empty(0))


@pytest.fixture(params=["bare", "varlen", "varlen, transposed", "flash-attn"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A kernel whose package is the stand-in."""
    if request.param == "bare":
        return FlashKernel(attention, lambda device: None)
    if request.param == "flash-attn":
        package = ModuleType("flash_attn")
        package.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "flash_attn", package)
        return flash_attn
    pytest.importorskip("torch.nn.attention.varlen")
    turned = "transposed" in request.param

    def called(*args: Any, **how: Any) -> tuple[Tensor, Tensor]:
        o, lse = packed(*args, **how)
        return o, lse.t() if turned else lse

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", called)
    return varlen


@pytest.mark.parametrize("band", MORE_BANDS.values(), ids=MORE_BANDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_the_reference(kernel: Any, shape: Shape, band: Band | None) -> None:
    check_call(kernel, random_call(shape), SCORING, band)


def test_the_window_of_use_is_one_that_the_packages_know() -> None:
    """A prompt's execution block: no key too many is shown, and none is left to the reference."""
    windows = []

    def noting(q: Tensor, k: Tensor, v: Tensor, scale: float, window: Window) -> Any:
        windows.append((k.shape[1], window))
        return attention(q, k, v, scale, window)

    q, k, v = random_call(Shape(Q=20, K=51))
    FlashKernel(noting, lambda device: None).attend(q, k, v, SCORING, Band(31, 0, 32))
    assert windows == [(51, (31, 0))]


def test_heads_too_wide_to_take_two_dimensions_more() -> None:
    q, k, _ = random_call(Shape(Q=20, D=256))
    lse = torch.zeros(1, 4, 20)

    def never(*args: Any) -> Any:
        raise AssertionError("256 dimensions are all that a package takes")

    mass = FlashKernel(never, lambda device: None).received(q, k, lse, SCORING)
    torch.testing.assert_close(mass, reference.received(q, k, lse, SCORING))


@pytest.mark.parametrize("name", ["varlen", "flash-attn"])
def test_refused_on_a_cpu(name: str) -> None:
    q, k, v = random_call(SHAPES["grouped"])
    with pytest.raises(SettingsError, match=f"kernel = '{name}' does not run on cpu: use 'auto'"):
        kernels.attend(q, k, v, Scoring(0.25, kernel=name))


def on_gpu(dtype: torch.dtype, width: int = 64) -> Any:
    """What `why_not` looks at, of a tensor on a GPU."""
    return SimpleNamespace(
        is_cuda=True,
        device=torch.device("cuda"),
        dtype=dtype,
        shape=(1, 4, 9, width),
        dim=lambda: 4,
    )


@pytest.mark.parametrize(
    ("capability", "q", "scoring", "reason"),
    [
        ((7, 5), on_gpu(torch.float16), SCORING, "compute capability 8.0"),
        ((9, 0), on_gpu(torch.float32), SCORING, "in float16 and bfloat16, not in float32"),
        ((9, 0), on_gpu(torch.float16, 320), SCORING, "at most 256 dimensions"),
        ((9, 0), on_gpu(torch.float16), Scoring(1.0, 30.0), "does not cap scores"),
        ((9, 0), on_gpu(torch.bfloat16), SCORING, "needs the flash-attn package"),
    ],
)
def test_reasons(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    q: Any,
    scoring: Scoring,
    reason: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for package in ("flash_attn", "flash_attn_interface"):
        monkeypatch.setitem(sys.modules, package, None)
    assert reason in str(flash_attn.why_not(scoring, q))


@pytest.mark.parametrize(("capability", "version"), [((8, 0), 2), ((9, 0), 3), ((10, 0), 2)])
def test_version_3_is_for_hopper(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], version: int
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for package, number in (("flash_attn", 2), ("flash_attn_interface", 3)):
        made = ModuleType(package)
        made.flash_attn_func = number  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, package, made)
    assert flash_attn._function(torch.device("cuda")) == version


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", ["varlen", "flash-attn"])
@pytest.mark.parametrize("band", MORE_BANDS.values(), ids=MORE_BANDS)
def test_on_a_gpu(name: str, band: Band | None) -> None:
    q, k, v = random_call(Shape(B=2, Q=100, K=160, D=64, Dv=64), torch.bfloat16, "cuda")
    module: Callable[..., Any] = kernels._load(name)
    reason = module.why_not(SCORING, q, k, v)  # type: ignore[attr-defined]
    if reason is not None:
        pytest.skip(reason)
    o, lse = kernels.attend(q, k, v, Scoring(0.25, kernel=name), band)
    want, want_lse = reference.attend(q, k, v, SCORING, band)
    sighted = want_lse > -math.inf
    torch.testing.assert_close(lse, want_lse, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(o[sighted], want[sighted], atol=3e-2, rtol=3e-2)
