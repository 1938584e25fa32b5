"""The fused CPU kernel against the reference: shapes, bands, dtypes, queries that see nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from inf_llm import kernels
from inf_llm.errors import SettingsError
from inf_llm.kernels import Band, Scoring, fused_cpu, reference
from tests.kernels.shapes import BANDS, SHAPES, Shape, random_call

pytestmark = pytest.mark.skipif(not fused_cpu.available(), reason="this torch lacks the kernel")

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_band = pytest.mark.parametrize("band", BANDS.values(), ids=BANDS)
SCORING = Scoring(0.25)


@every_dtype
@every_band
@every_shape
def test_attend(shape: Shape, band: Band | None, dtype: torch.dtype) -> None:
    q, k, v = random_call(shape, dtype)
    o, lse = fused_cpu.attend(q, k, v, SCORING, band)
    want, want_lse = reference.attend(q.float(), k.float(), v.float(), SCORING, band)
    near = TOLERANCE[dtype]
    assert (o.shape, o.dtype) == (want.shape, dtype)
    assert lse.dtype == torch.float32
    sighted = want_lse > -math.inf
    torch.testing.assert_close(lse, want_lse, atol=near, rtol=near)
    torch.testing.assert_close(o[sighted].float(), want[sighted], atol=near, rtol=near)


@every_dtype
@every_band
@every_shape
def test_received(shape: Shape, band: Band | None, dtype: torch.dtype) -> None:
    """The lse is of a larger softmax, as it is in use; no query of it is blind."""
    q, k, _ = random_call(shape, dtype)
    lse = torch.linspace(2.0, 9.0, shape.Q).expand(shape.B, shape.H, shape.Q).contiguous()
    got = fused_cpu.received(q, k, lse, SCORING, band)
    want = reference.received(q.float(), k.float(), lse, SCORING, band)
    near = 3 * TOLERANCE[dtype]
    assert (got.shape, got.dtype) == (want.shape, torch.float32)
    torch.testing.assert_close(got, want, atol=near * float(want.max() + 1), rtol=near)


@every_dtype
@pytest.mark.parametrize("size", [1.0, 30.0, 300.0])
def test_received_where_scores_are_large(size: float, dtype: torch.dtype) -> None:
    """The mass is a sum of probabilities, whatever the scores: nothing may overflow or fade."""
    q, k, v = random_call(Shape(Q=64, K=64), dtype)
    band = Band(0)
    scoring = Scoring(size / 64)
    lse = reference.attend(q, k, v, scoring, band)[1]
    got = fused_cpu.received(q, k, lse, scoring, band)
    want = reference.received(q, k, lse, scoring, band)
    relative = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.15}[dtype]
    torch.testing.assert_close(got, want, atol=relative * max(1.0, size / 30), rtol=relative)


@every_dtype
@pytest.mark.parametrize("lse", [-50.3, -0.7, 9.9])
def test_received_keeps_the_lse_whole(lse: float, dtype: torch.dtype) -> None:
    """In half precision the lse alone would be rounded so far that the mass is off by percents."""
    q, k, _ = random_call(Shape(Q=30), dtype)
    mass = fused_cpu.received(0 * q, k, torch.full((1, 4, 30), lse), SCORING, Band(0, -99))
    torch.testing.assert_close(mass, torch.full_like(mass, 30 * math.exp(-lse)), atol=0, rtol=3e-3)


def test_keys_that_no_query_sees_get_nothing() -> None:
    q, k, _ = random_call(SHAPES["grouped"])
    mass = fused_cpu.received(q, k, torch.zeros(1, 4, 20), SCORING, Band(4, 2, 5))
    seen = Band(4, 2, 5).visible(20, 33, q.device).any(0)
    assert (mass[:, :, ~seen] == 0).all()
    assert (mass[:, :, seen] > 0).all()


def test_not_contiguous_inputs() -> None:
    """Views of a longer buffer, and heads behind tokens, as they come in use."""
    q, k, v = random_call(SHAPES["own heads, rows"])
    loose = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    loose[1] = torch.cat((k, k), 2)[:, :, : k.shape[2]]
    for got, want in zip(
        fused_cpu.attend(loose[0], loose[1], loose[2], SCORING, Band(13)),
        reference.attend(q, k, v, SCORING, Band(13)),
        strict=True,
    ):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


class TestTheDoor:
    """`inf_llm.kernels.attend` and `received` choose a kernel that can."""

    @pytest.mark.parametrize("kernel", ["auto", "fused", "reference"])
    def test_every_name_gives_the_same(self, kernel: str) -> None:
        q, k, v = random_call(SHAPES["grouped"])
        o, lse = kernels.attend(q, k, v, Scoring(0.25, kernel=kernel), Band(13))
        want, want_lse = reference.attend(q, k, v, SCORING, Band(13))
        torch.testing.assert_close(o, want, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(lse, want_lse, atol=1e-5, rtol=1e-5)
        mass = kernels.received(q, k, lse, Scoring(0.25, kernel=kernel), Band(13))
        torch.testing.assert_close(
            mass, reference.received(q, k, lse, SCORING, Band(13)), atol=1e-5, rtol=1e-5
        )

    @pytest.mark.parametrize("kernel", ["auto", "fused"])
    def test_soft_caps_are_honoured(self, kernel: str) -> None:
        q, k, v = random_call(SHAPES["grouped"])
        capped = Scoring(0.25, 1.0, kernel)
        got = kernels.attend(q, k, v, capped)
        for mine, want in zip(got, reference.attend(q, k, v, capped), strict=True):
            torch.testing.assert_close(mine, want)
        assert not torch.allclose(got[0], kernels.attend(q, k, v, SCORING)[0])

    @pytest.mark.parametrize("leaf", [0, 1, 2], ids=["queries", "keys", "values"])
    def test_gradients(self, leaf: int) -> None:
        """Also where one input alone has them, and through the merged log-sum-exp."""

        def gradient(attend: Callable[..., tuple[Tensor, Tensor]]) -> Tensor:
            parts = list(random_call(SHAPES["grouped"]))
            parts[leaf].requires_grad_()
            bands = (Band(13, 0, 10), Band(13, 10))
            both = [attend(parts[0], parts[1], parts[2], SCORING, band) for band in bands]
            merged = kernels.merge([(o, lse) for o, lse in both])[0]
            (merged * torch.linspace(0, 1, merged.shape[-1])).sum().backward()
            found = parts[leaf].grad
            assert found is not None
            return found

        want = gradient(reference.attend)
        assert want.isfinite().all()
        torch.testing.assert_close(gradient(kernels.attend), want, atol=1e-5, rtol=1e-5)

    @pytest.mark.cuda
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
    def test_fused_on_another_device_is_refused(self) -> None:
        q, k, v = random_call(SHAPES["grouped"], device="cuda")
        with pytest.raises(SettingsError, match="'fused' does not run on cuda"):
            kernels.attend(q, k, v, Scoring(0.25, kernel="fused"))


@pytest.mark.parametrize("which", range(3), ids="qkv")
@pytest.mark.parametrize("queries", [1, 5])
def test_dimensions_of_a_head_that_lie_apart(which: int, queries: int) -> None:
    shape = Shape(B=2, Q=queries)
    call = list(random_call(shape))
    want = reference.attend(*call, Scoring(0.3))
    wide = torch.randn(*call[which].shape[:3], 2 * call[which].shape[3])
    wide[..., ::2] = call[which]
    call[which] = wide[..., ::2]
    for got, wanted in zip(fused_cpu.attend(*call, Scoring(0.3)), want, strict=True):
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=2e-5)
