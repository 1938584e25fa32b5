"""Rotation: exact far out, every layout, and distances alone decide a score."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from inf_llm.rope import Rope
from tests.attention.dense import Turn

FAR = [0, 1, 4095, 1_000_000, 10_000_000, 123_456_789]


def exactly(rope: Rope, x: torch.Tensor, position: int) -> torch.Tensor:
    """One token (D,) turned with Python's own floats, pair by pair."""
    out = x.double().clone()
    for r, frequency in enumerate(rope.frequencies.tolist()):
        if rope.interleaved:
            a, b = rope.start + 2 * r, rope.start + 2 * r + 1
        else:
            a, b = rope.start + r, rope.start + rope.pairs + r
        cos, sin = math.cos(position * frequency), math.sin(position * frequency)
        real, imaginary = float(x[a]), float(x[b])
        out[a] = rope.amplitude * (real * cos - imaginary * sin)
        out[b] = rope.amplitude * (imaginary * cos + real * sin)
    return out


LAYOUTS = {
    "plain": Rope.from_base(16, 10000.0),
    "long base": Rope.from_base(16, 5e6),
    "scaled": Rope.from_base(16, 10000.0, 0.3),
    "interleaved": Rope(Rope.from_base(16, 10000.0).frequencies, interleaved=True),
    "first part": Rope(Rope.from_base(8, 10000.0).frequencies),
    "last part": Rope(Rope.from_base(8, 10000.0).frequencies, start=8),
    "middle, interleaved": Rope(Rope.from_base(8, 100.0).frequencies, 1.0, 4, True),
    "amplitude": Rope(Rope.from_base(16, 10000.0).frequencies, amplitude=1.4),
    "backwards": Rope(-Rope.from_base(16, 10000.0).frequencies),
    "none": Rope.none(),
}
every_layout = pytest.mark.parametrize("rope", LAYOUTS.values(), ids=LAYOUTS)


@every_layout
@pytest.mark.parametrize("first", FAR)
def test_equals_exact_angles(rope: Rope, first: int, device: torch.device) -> None:
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    got = rope.rotate(x.to(device), first).cpu()
    want = torch.stack([exactly(rope, token, first + i) for i, token in enumerate(x)])
    torch.testing.assert_close(got.double(), want, atol=1e-6, rtol=1e-6)


def test_equals_the_tests_own_rotation() -> None:
    x = torch.randn(2, 5, 16)
    got = Rope.from_base(16, 500.0, 0.5).rotate(x, 70)
    want = Turn(500.0, 0.5)(x.double().numpy()[1], torch.arange(70, 75).numpy())
    torch.testing.assert_close(got[1].double(), torch.from_numpy(want), atol=1e-6, rtol=1e-6)


@every_layout
def test_each_token_at_a_position_of_its_own(rope: Rope, device: torch.device) -> None:
    x = torch.randn(2, 3, len(FAR), 16, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([FAR, FAR[::-1]])
    got = rope.rotate_at(x.to(device), positions[:, None].to(device)).cpu()
    for b, h, i in np.ndindex(x.shape[:3]):
        want = exactly(rope, x[b, h, i], int(positions[b, i]))
        torch.testing.assert_close(got[b, h, i].double(), want, atol=1e-6, rtol=1e-6)


@every_layout
@pytest.mark.parametrize("rounds", [False, True], ids=["exact", "rounded"])
def test_positions_in_a_row_are_a_range(rope: Rope, rounds: bool) -> None:
    rope = dataclasses.replace(rope, rounds=rounds)
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(2, 3, 5, 16).to(dtype)
        got = rope.rotate_at(x, torch.arange(900, 905))
        assert got.dtype == dtype
        assert torch.equal(got, rope.rotate(x, 900))


@every_layout
@pytest.mark.parametrize("rounds", [False, True], ids=["exact", "rounded"])
def test_rows_stand_at_positions_of_their_own(rope: Rope, rounds: bool) -> None:
    rope = dataclasses.replace(rope, rounds=rounds)
    for positions in ((5, 100_000, 0), (6, 100_001, 1), (6, 100_001, 1)):
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(3, 2, 1, 16).to(dtype)
            each = [rope.rotate(row, at) for row, at in zip(x.split(1), positions, strict=True)]
            assert torch.equal(rope.rotate_rows(x, positions), torch.cat(each))


@every_layout
def test_to_one_position(rope: Rope) -> None:
    x = torch.randn(2, 3, 4, 16)
    got = rope.rotate_to(x, 77)
    for i in range(4):
        torch.testing.assert_close(got[:, :, i : i + 1], rope.rotate(x[:, :, i : i + 1], 77))


@every_layout
def test_only_the_distance_counts(rope: Rope) -> None:
    q, k = torch.randn(1, 16), torch.randn(1, 16)
    here = rope.rotate(q, 1030) @ rope.rotate(k, 1000).T
    there = rope.rotate(q, 9_999_030) @ rope.rotate(k, 9_999_000).T
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-5)


@every_layout
def test_far_queries_meet_keys_as_they_are(rope: Rope) -> None:
    """Amplitude included: the query takes the key's factor too."""
    q, k = torch.randn(5, 16), torch.randn(7, 16)
    want = rope.rotate_to(q, 163) @ rope.rotate_to(k, 100).T
    torch.testing.assert_close(rope.rotate_far(q, 63) @ k.T, want, atol=1e-4, rtol=1e-5)


@every_layout
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once(rope: Rope, dtype: torch.dtype) -> None:
    x = torch.randn(6, 16).to(dtype)
    got = rope.rotate(x, 1_000_000)
    assert got.dtype == dtype
    assert torch.equal(got, rope.rotate(x.float(), 1_000_000).to(dtype))


@every_layout
@pytest.mark.parametrize("rounds", [False, True], ids=["exact", "rounded"])
def test_queries_and_keys_turn_together(rope: Rope, rounds: bool) -> None:
    """And as often as they may: tables of another format or place are not taken for theirs."""
    rope = dataclasses.replace(rope, rounds=rounds)
    for dtype in (torch.float32, torch.bfloat16):
        q, k = torch.randn(2, 4, 5, 16).to(dtype), torch.randn(2, 2, 5, 16).to(dtype)
        both = rope.rotate_both(q, k, 70), rope.rotate_both(q, k, 71)
        for first, turned in zip((70, 71), both, strict=True):
            for one, x in zip(turned, (q, k), strict=True):
                assert one.dtype == dtype
                assert torch.equal(one, dataclasses.replace(rope).rotate(x, first))


def test_what_is_not_turned_stays_as_it_is() -> None:
    x = torch.randn(4, 16)
    got = Rope(Rope.from_base(8, 10000.0).frequencies, amplitude=1.4, start=4).rotate(x, 9)
    assert torch.equal(got[:, :4], x[:, :4])
    assert torch.equal(got[:, 12:], x[:, 12:])
    assert not torch.isclose(got[:, 4:12], x[:, 4:12]).any()


def test_inputs_are_left_alone() -> None:
    x = torch.randn(4, 16)
    before = x.clone()
    for rope in LAYOUTS.values():
        rope.rotate(x, 5), rope.rotate_to(x, 5), rope.rotate_far(x, 5)
        rope.rotate_at(x, torch.arange(4))
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ["plain", "interleaved", "amplitude", "last part", "backwards"])
def test_rescaled(name: str) -> None:
    rope = LAYOUTS[name]
    x = torch.randn(3, 16)
    rope.rotate_to(x, 40)  # what it keeps must not be kept by the other one
    slower = rope.rescaled(None, 0.25)
    torch.testing.assert_close(slower.rotate_to(x, 40), rope.rotate_to(x, 10))
    other = rope.rescaled(500.0, 1.0)
    pairs = torch.arange(rope.pairs).double()
    sign = -1.0 if name == "backwards" else 1.0
    torch.testing.assert_close(other.frequencies, sign * 500.0 ** (-pairs / rope.pairs))
    layout = (rope.amplitude, rope.start, rope.interleaved)
    assert (other.amplitude, other.start, other.interleaved) == layout


def test_rescaled_without_positions() -> None:
    x = torch.randn(3, 16)
    assert torch.equal(Rope.none().rescaled(500.0, 2.0).rotate(x, 9), x)


def test_tables_of_many_places() -> None:
    """Only a few are kept, and none is mistaken for another."""
    rope = Rope.from_base(4, 10000.0)
    for _ in range(2):
        for first in range(12):
            for count in (1, 3):
                cos, sin = rope.table(first, count, 1.0, torch.float32, torch.device("cpu"))
                angles = torch.outer(torch.arange(first, first + count).double(), rope.frequencies)
                assert torch.equal(cos, angles.cos().float().repeat(1, 2))
                assert torch.equal(sin[:, 2:], angles.sin().float())
                assert torch.equal(sin[:, :2], -sin[:, 2:])
