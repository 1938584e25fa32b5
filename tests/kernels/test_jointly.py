"""One softmax over several sources is the softmax over all their keys, however they are given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from inf_llm import kernels
from inf_llm.kernels import Band, Scoring, Source, attend_jointly, attend_rows, fused_cpu
from inf_llm.native import loops

H, D, DV = 6, 8, 5


def dense(
    sources: list[Source], scoring: Scoring, sink: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Output and masses of every source, by one matrix of scores in float64."""
    scores, values = [], []
    for source in sources:
        k, v = (torch.cat(part, 2).double() for part in zip(*source.pieces, strict=True))
        k, v = (x.repeat_interleave(H // x.shape[1], 1) for x in (k, v))
        part_scores = source.q.double() @ k.transpose(-1, -2) * scoring.scale
        if scoring.softcap is not None:
            part_scores = scoring.softcap * torch.tanh(part_scores / scoring.softcap)
        if source.band is not None:
            seen = source.band.visible(*part_scores.shape[2:], part_scores.device)
            part_scores = part_scores.masked_fill(~seen, -torch.inf)
        scores.append(part_scores)
        values.append(v)
    sizes = [part_scores.shape[3] for part_scores in scores]
    if sink is not None:
        scores.append(sink.double().view(1, -1, 1, 1).expand(*scores[0].shape[:3], 1))
    weights = torch.cat(scores, 3).softmax(3)[..., : sum(sizes)]
    return weights @ torch.cat(values, 2), list(weights.sum(2).split(sizes, 2))


def random_sources(
    queries: int, dtype: torch.dtype, device: torch.device, keys: tuple[int, ...] = (7, 3, 0, 4)
) -> list[Source]:
    """A window, two pieces that are read with another query, and heads with keys of their own."""
    torch.manual_seed(0)

    def piece(heads: int, count: int) -> tuple[Tensor, Tensor]:
        wide = torch.randn(2, heads, count + 3, D + DV).to(device, dtype)
        return wide[:, :, 2 : count + 2, :D], wide[:, :, 2 : count + 2, D:]  # as views of buffers

    near, far = torch.randn(2, 2, H, queries, D).to(device, dtype)
    band = None if queries == 1 else Band(keys[0] - queries, 0, 4)
    return [
        Source(near, [piece(2, keys[0])], band, needs_mass=True),
        Source(far, [piece(2, keys[1]), piece(2, keys[2])]),
        Source(far, [piece(H, keys[3])], needs_mass=True),
    ]


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sink", [False, True], ids=["", "learned sink"])
@pytest.mark.parametrize("softcap", [None, 2.0], ids=["", "capped"])
@pytest.mark.parametrize("kernel", ["auto", "reference"])
def test_one_softmax(
    queries: int,
    dtype: torch.dtype,
    sink: bool,
    softcap: float | None,
    kernel: str,
    device: torch.device,
) -> None:
    sources = random_sources(queries, dtype, device)
    scoring = Scoring(0.4, softcap, kernel)
    learned = torch.randn(H).to(device) if sink else None
    o, masses = attend_jointly(iter(sources), scoring, learned)
    want, shares = dense(sources, scoring, learned)
    near = 1e-5 if dtype == torch.float32 else 3e-2
    assert o.shape == (2, H, queries, DV)
    assert o.dtype == dtype
    torch.testing.assert_close(o.double(), want, atol=near, rtol=near)
    assert [mass is not None for mass in masses] == [source.needs_mass for source in sources]
    for mass, share in zip(masses, shares, strict=True):
        if mass is not None:
            assert mass.dtype == torch.float32
            torch.testing.assert_close(mass.double(), share, atol=near, rtol=near)


def test_a_single_query_takes_one_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 on a CPU no part is computed by itself."""
    monkeypatch.setattr(kernels, "attend", None)
    monkeypatch.setattr(kernels, "received", None)
    attend_jointly(random_sources(1, torch.float32, torch.device("cpu")), Scoring(0.4))


@pytest.mark.parametrize("keys", [(1, 0, 0, 0), (0, 2, 0, 0), (5, 0, 3, 0)], ids=str)
def test_sources_without_keys(keys: tuple[int, ...]) -> None:
    sources = random_sources(1, torch.float32, torch.device("cpu"), keys)
    o, _ = attend_jointly(sources, Scoring(0.4))
    torch.testing.assert_close(o.double(), dense(sources, Scoring(0.4))[0], atol=1e-5, rtol=1e-5)


def test_later_sources_are_asked_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its way is waited for when what is there has been handed to the device."""
    order = []
    attend = kernels.attend

    def attending(*args: object) -> object:
        order.append("attends")
        return attend(*args)  # type: ignore[arg-type]

    def asking() -> Iterator[Source]:
        for source in random_sources(3, torch.float32, torch.device("cpu")):
            order.append("asked")
            yield source

    monkeypatch.setattr(kernels, "attend", attending)
    attend_jointly(asking(), Scoring(0.4, kernel="reference"))
    assert order == ["asked", "attends"] * 3


@pytest.mark.parametrize("kernel", ["auto", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("queries", [1, 3])
def test_no_keys_at_all(queries: int, dtype: torch.dtype, kernel: str) -> None:
    """A kernel that divides by their number must not be asked."""
    q, k, v = torch.randn(1, H, queries, D), torch.randn(1, 2, 0, D), torch.randn(1, 2, 0, DV)
    o, lse = kernels.attend(q.to(dtype), k.to(dtype), v.to(dtype), Scoring(0.4, None, kernel))
    assert o.shape == (1, H, queries, DV)
    assert (lse == -torch.inf).all()


def test_who_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    window, *_ = random_sources(1, torch.float32, torch.device("cpu"))
    several, *_ = random_sources(3, torch.float32, torch.device("cpu"))
    half, *_ = random_sources(1, torch.bfloat16, torch.device("cpu"))
    assert fused_cpu.joins(window, None)
    assert not fused_cpu.joins(window, torch.zeros(H))
    assert not fused_cpu.joins(several, None)
    assert fused_cpu.joins(half, None) == loops.available()
    monkeypatch.setattr(loops, "functions", lambda: None)
    assert fused_cpu.joins(window, None)
    assert not fused_cpu.joins(half, None)
    banded = Source(window.q, window.pieces, Band(0))
    assert not fused_cpu.joins(banded, None)
    with pytest.raises(AssertionError, match="sees all"):
        fused_cpu.attend_jointly([window, banded], Scoring(0.4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("sink", [False, True])
def test_rows_with_keys_of_their_own(dtype: torch.dtype, softcap: float | None, sink: bool) -> None:
    """Every row is as by itself, whatever the others have; one of them has no far keys."""
    lengths = [(7, 3, 0, 4), (2, 5, 6, 1), (7, 3, 0, 0)]
    rows = [
        [_first_row(source) for source in random_sources(1, dtype, torch.device("cpu"), keys)]
        for keys in lengths
    ]
    del rows[2][1:]
    scoring = Scoring(0.3, softcap)
    learned = torch.randn(H) if sink else None
    o, masses = attend_rows(rows, scoring, learned)
    close = {"atol": 2e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02}
    for row, sources in enumerate(rows):
        want, wanted = dense(sources, scoring, learned)
        torch.testing.assert_close(o[row : row + 1].double(), want, **close)
        for source, got, mass in zip(sources, masses[row], wanted, strict=True):
            assert (got is not None) == source.needs_mass
            if got is not None:
                torch.testing.assert_close(got.double(), mass, **close)


def _first_row(source: Source) -> Source:
    pieces = [(k[:1], v[:1]) for k, v in source.pieces]
    return Source(source.q[:1], pieces, source.band, source.needs_mass)
