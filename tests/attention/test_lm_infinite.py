"""The standalone module against a dense statement, in pieces, and under training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inf_llm import LMInfinite
from inf_llm.attention.lm_infinite import LambdaState
from inf_llm.errors import SettingsError, UnsupportedInputError
from tests.layers import feed, make_layer


def inputs(
    length: int, width: int = 32, rows: int = 2, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    return [
        scale * torch.randn(rows, length, width, generator=generator, dtype=torch.float64).to(dtype)
        for scale in (2, 1, 1)
    ]


def turned(x: np.ndarray, position: int, base: float) -> np.ndarray:
    half = len(x) // 2
    angle = position * base ** (-np.arange(half) / half)
    spun = (x[:half] + 1j * x[half:]) * np.exp(1j * angle)
    return np.concatenate((spun.real, spun.imag))


def dense(
    qkv: list[Tensor], n_global: int, l_pretrain: int, heads: int, base: float | None
) -> np.ndarray:
    """One query and one key at a time, in float64, from the rule alone."""
    q, k, v = (x.double().numpy().reshape(*x.shape[:2], heads, -1) for x in qkv)
    rows, length, _, width = q.shape
    out = np.zeros_like(v)
    for b, h, i in np.ndindex(rows, heads, length):
        seen, scores = [], []
        for j in range(i + 1):
            distance = i - j
            if distance >= l_pretrain and j >= n_global:
                continue
            distance = min(distance, l_pretrain - 1)
            query = q[b, i, h] if base is None else turned(q[b, i, h], distance, base)
            seen.append(j)
            scores.append(query @ k[b, j, h] / math.sqrt(width))
        weights = np.exp(np.array(scores) - max(scores))
        out[b, i, h] = weights / weights.sum() @ v[b, seen, h]
    return out.reshape(rows, length, -1)


CASES = {
    "plain": {"n_global": 3, "l_pretrain": 10},
    "heads": {"n_global": 3, "l_pretrain": 10, "num_heads": 4},
    "no globals": {"n_global": 0, "l_pretrain": 10},
    "window of one": {"n_global": 3, "l_pretrain": 1},
    "more globals than window": {"n_global": 20, "l_pretrain": 6, "num_heads": 2},
    "longer than the text": {"n_global": 3, "l_pretrain": 100},
    "no positions": {"n_global": 3, "l_pretrain": 10, "num_heads": 2, "rotary": False},
    "another base": {"n_global": 3, "l_pretrain": 10, "base": 100.0},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_the_dense_statement(case: dict) -> None:
    qkv = inputs(45)
    base = case.get("base", 10000.0) if case.get("rotary", True) else None
    wanted = dense(qkv, case["n_global"], case["l_pretrain"], case.get("num_heads", 1), base)
    np.testing.assert_allclose(LMInfinite(32, **case)(*qkv), wanted, atol=2e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("pieces", [[1] * 700, [3, 0, 300, 1, 396]], ids=["one by one", "ragged"])
def test_pieces_give_what_the_whole_gives(case: dict, pieces: list[int]) -> None:
    module, qkv = LMInfinite(32, **case), inputs(700)
    state: LambdaState | None = None
    outputs = []
    for piece in zip(*(x.split(pieces, 1) for x in qkv), strict=True):
        output, state = module.feed(*piece, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), module(*qkv), atol=1e-5, rtol=1e-5)
    assert state is not None
    assert state.seen == 700
    assert state.near_k.shape[2] == min(case["l_pretrain"] - 1, 700)
    assert state.global_k.shape[2] == case["n_global"]


def test_equals_the_layer_that_models_are_patched_with() -> None:
    q, k, v = (x.unflatten(2, (4, 16)).transpose(1, 2) for x in inputs(200, 64))
    layer = make_layer("infinite-lm", n_init=4, n_local=24)
    wanted = feed(layer, (q, k, v)).transpose(1, 2).flatten(2)
    got = LMInfinite(64, n_global=4, l_pretrain=24, num_heads=4)(*inputs(200, 64))
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rotary", [True, False])
def test_gradients_are_right(rotary: bool) -> None:
    module = LMInfinite(4, n_global=2, l_pretrain=3, num_heads=2, rotary=rotary)
    qkv = [x.requires_grad_() for x in inputs(9, 4, 1, torch.float64)]
    assert torch.autograd.gradcheck(module, qkv)


def test_gradients_cross_pieces_unless_detached() -> None:
    module, qkv = LMInfinite(32, 2, 8), [x.requires_grad_() for x in inputs(20)]
    first, second = ([x[:, :10] for x in qkv], [x[:, 10:] for x in qkv])
    _, state = module.feed(*first)
    for history, reaches in ((state, True), (state.detach(), False)):
        gradient = torch.autograd.grad(
            module.feed(*second, history)[0].sum(), qkv[2], retain_graph=True
        )[0]
        assert bool(gradient[:, :10].any()) is reaches
    whole = torch.autograd.grad(module(*qkv)[:, 10:].square().sum(), qkv)
    pieces = torch.autograd.grad(module.feed(*second, state)[0].square().sum(), qkv)
    torch.testing.assert_close(pieces, whole, atol=1e-4, rtol=1e-4)


def trained_loss(n_global: int) -> tuple[float, float]:
    """First and last loss of learning which of four tokens stood at the start of a text."""
    torch.manual_seed(0)
    module = LMInfinite(16, n_global, l_pretrain=4, num_heads=2)
    embed, project, read = nn.Embedding(4, 16), nn.Linear(16, 48), nn.Linear(16, 4)
    parameters = [*embed.parameters(), *project.parameters(), *read.parameters()]
    optimizer = torch.optim.Adam(parameters, 0.03)
    losses = []
    for _ in range(80):
        ids = torch.randint(4, (32, 12))
        out = module(*project(embed(ids)).chunk(3, -1))
        loss = nn.functional.cross_entropy(read(out[:, -1]), ids[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], sum(losses[-10:]) / 10


def test_training_through_it_lowers_a_loss() -> None:
    first, last = trained_loss(n_global=1)
    assert first > 1.3
    assert last < 0.5 * first
    assert trained_loss(n_global=0)[1] > 1.3, "the start is out of sight and yet was learned"


def test_no_matrix_of_the_whole_text_is_made() -> None:
    """300,000 tokens: a dense matrix of scores would take 360 GB."""
    module = LMInfinite(4, n_global=4, l_pretrain=64)
    with torch.no_grad():
        assert module(*inputs(300_000, 4, 1)).isfinite().all()


def test_shapes_and_dtypes_are_kept() -> None:
    module = LMInfinite(32, num_heads=4)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert module(*inputs(5, dtype=dtype)).dtype == dtype
    assert module(*inputs(0)).shape == (2, 0, 32)
    assert repr(module) == (
        "LMInfinite(d_model=32, n_global=100, l_pretrain=2048, num_heads=4, rotary=True)"
    )
    assert not module.state_dict()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"d_model": 0}, "d_model = 0 is too small: at least 1"),
        ({"l_pretrain": 0}, "l_pretrain = 0 is too small: at least 1"),
        ({"n_global": -1}, "n_global = -1 is too small: at least 0"),
        ({"num_heads": 5}, "d_model = 32 cannot be split into num_heads = 5"),
        ({"num_heads": 32}, "a multiple of 64 is needed"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        LMInfinite(**{"d_model": 32, **sizes})


def test_inputs_that_do_not_fit_are_refused() -> None:
    module, (q, k, v) = LMInfinite(32), inputs(6)
    with pytest.raises(UnsupportedInputError, match=r"q \(2, 6, 16\), .* \(batch, length, 32\)"):
        module(q[..., :16], k[..., :16], v[..., :16])
    with pytest.raises(UnsupportedInputError, match=r"k \(2, 5, 32\)"):
        module(q, k[:, 1:], v)
    _, state = module.feed(q, k, v)
    with pytest.raises(UnsupportedInputError, match="1 rows does not fit a state of 2"):
        module.feed(q[:1], k[:1], v[:1], state)
