"""Codes of 8 and 4 bits: the maths, its bound, outlier channels, bytes, and what stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inf_llm.choice import Choice
from inf_llm.errors import SettingsError
from inf_llm.memory.codec import Codec, PageShape
from inf_llm.settings import make_settings
from inf_llm.variants import CODEC
from tests.attention.draws import examples
from tests.layers import feed, make_memory_layer, random_qkv, read_representatives, tokens_of

CODES = ["int8", "int4"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def codec_of(name: str, dtype: torch.dtype, sizes: tuple[int, int, int], **options: Any) -> Codec:
    """For pages of (tokens, key width, value width)."""
    made: Codec = Choice(name, options).build(CODEC, PageShape(2, *sizes, dtype))
    return made


def there_and_back(codec: Codec, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return codec.decode(codec.encode(k, v))


def in_bfloat16(x: np.ndarray, down: bool = False) -> np.ndarray:
    """float64 rounded to the nearest number of bfloat16, or down to the next: 8 bits."""
    exponent = np.floor(np.log2(np.maximum(np.abs(x), 1e-300))) - 7
    rounded = np.floor if down else np.round
    return np.asarray(rounded(x / 2.0**exponent) * 2.0**exponent)


def restored(x: np.ndarray, bits: int) -> np.ndarray:
    """What becomes of one group of numbers."""
    if bits == 8:
        scale = in_bfloat16(np.abs(x).max() / 127)
        return np.asarray(np.clip(np.round(x / scale), -127, 127) * scale)
    least = in_bfloat16(x.min(), down=True)
    scale = in_bfloat16((x.max() - least) / 15)
    return np.asarray(np.clip(np.round((x - least) / scale), 0, 15) * scale + least)


@pytest.mark.parametrize(("name", "bits"), [("int8", 8), ("int4", 4)])
def test_the_maths(name: str, bits: int) -> None:
    """Keys in groups of 8 tokens of a channel for int4, values of 8 channels of a token."""
    group = 16 if bits == 8 else 8
    options = {} if bits == 8 else {"group": group}
    k, v = torch.randn(3, 16, 6) + 2, torch.randn(3, 16, 16)
    got_k, got_v = there_and_back(codec_of(name, torch.float32, (16, 6, 16), **options), k, v)
    for page in range(3):
        want = np.empty((16, 6))
        for channel in range(6):
            for first in range(0, 16, group):
                part = slice(first, first + group)
                want[part, channel] = restored(k[page, part, channel].double().numpy(), bits)
        np.testing.assert_allclose(got_k[page].numpy(), want, rtol=1e-5, atol=1e-6)
        want = np.empty((16, 16))
        for token in range(16):
            for first in range(0, 16, group):
                part = slice(first, first + group)
                want[token, part] = restored(v[page, token, part].double().numpy(), bits)
        np.testing.assert_allclose(got_v[page].numpy(), want, rtol=1e-5, atol=1e-6)


def half_a_step(x: Tensor, name: str, along: int) -> Tensor:
    """Half of an exact scale, and what rounding of scales and of the result may add."""
    x = x.double()
    peak = x.abs().amax(along, keepdim=True)
    if name == "int8":
        return peak / 127 / 2 * (1 + 2**-7)
    least, most = x.amin(along, keepdim=True), x.amax(along, keepdim=True)
    return (most - least + least.abs() * 2**-7) / 15 / 2 * (1 + 2**-7)


@given(
    name=st.sampled_from(CODES),
    dtype=st.sampled_from(DTYPES),
    tokens=st.integers(1, 64),
    widths=st.tuples(st.integers(1, 20), st.integers(1, 64)),
    magnitude=st.floats(-5, 3.5),
    mean=st.floats(-20, 20),
    seed=st.integers(0, 1000),
)
@examples(150)
def test_errors_are_at_most_half_a_step(
    name: str,
    dtype: torch.dtype,
    tokens: int,
    widths: tuple[int, int],
    magnitude: float,
    mean: float,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    k, v = ((torch.randn(2, tokens, width) + mean) * 10**magnitude for width in widths)
    k, v = (x.clamp(-16000, 16000).to(dtype) for x in (k, v))
    codec = codec_of(name, dtype, (tokens, *widths))
    pages = zip((k, v), there_and_back(codec, k, v), (1, 2), strict=True)
    for x, got, along in pages:
        assert got.dtype == dtype
        bound = half_a_step(x, name, along).clamp(min=4e-6 if dtype == torch.float16 else 0)
        rounding = 3 * torch.finfo(dtype).eps * x.double().abs().amax(along, keepdim=True)
        error = (got.double() - x.double()).abs()
        assert (error <= bound + rounding + 1e-37).all(), (error - bound - rounding).max()


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_large_small_or_the_same(name: str, dtype: torch.dtype) -> None:
    """A channel of zeros stays zero; one value is kept to the precision of the scales."""
    largest = torch.finfo(dtype).max
    codec = codec_of(name, dtype, (8, 6, 4))
    k = torch.randn(1, 8, 6)
    k[..., 0] = 0
    k[..., 1] = 3.7
    k[..., 2] *= 1e5 if dtype != torch.float16 else 1e3
    k[..., 3] *= 1e-6
    k[..., 4] = largest
    k[..., 5] = -largest
    k[:, 3, 5] = largest
    k = k.to(dtype)
    got, values = there_and_back(codec, k, torch.zeros(1, 8, 4, dtype=dtype))
    assert got.isfinite().all()
    assert not values.any()
    assert not got[..., 0].any()
    torch.testing.assert_close(got[..., 1], k[..., 1], rtol=1e-2, atol=0)
    assert ((got - k)[..., 2].abs() <= 1.5 * half_a_step(k[..., 2], name, 1)).all()
    assert (got[..., 4] >= largest / 5).all()


@pytest.mark.parametrize("name", CODES)
def test_a_block_of_one_token(name: str) -> None:
    k, v = torch.randn(4, 1, 5), torch.randn(4, 1, 3)
    codec = codec_of(name, torch.float32, (1, 5, 3))
    got_k, got_v = there_and_back(codec, k, v)
    torch.testing.assert_close(got_k, k, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(got_v, v, rtol=0.2, atol=0.2)


def per_token(x: Tensor, levels: int) -> Tensor:
    """The rule that fails on outlier channels: one scale for all channels of a token."""
    scale = x.abs().amax(2, keepdim=True) / levels
    return (x / scale).round() * scale


@pytest.mark.parametrize(("name", "levels", "near"), [("int8", 127, 0.05), ("int4", 7, 0.12)])
def test_outlier_channels(name: str, levels: int, near: float) -> None:
    """As in Qwen2.5, and more so: two channels of 64 are 100 times the others and hardly change.

    What they say is common to all keys, so that it is the small channels that tell keys apart.
    """
    k = torch.randn(2, 64, 64)
    k[..., [7, 40]] = 400 + 4 * k[..., [7, 40]]
    q = torch.randn(64)
    q[[7, 40]] = 0.1
    assert k.abs().amax((0, 1)).max() / k.abs().amax((0, 1)).median() >= 100

    def lost(got: Tensor) -> float:
        """Error of logits, as a share of how they vary."""
        return float(((got - k) @ q).std() / (k @ q).std())

    codec = codec_of(name, torch.float32, (64, 64, 64))
    ours, control = lost(there_and_back(codec, k, k)[0]), lost(per_token(k, levels))
    assert ours < near
    assert control > 0.35
    assert control > 4 * ours


@pytest.mark.parametrize(
    ("name", "block", "most"),
    [("int8", 64, 0.53), ("int8", 32, 0.53), ("int4", 64, 0.30), ("int4", 32, 0.30)],
)
@pytest.mark.parametrize("width", [64, 128, 256])
def test_bytes(name: str, block: int, most: float, width: int) -> None:
    """Of bfloat16's and, since codes do not grow with the dtype, half of that of float32's."""
    for dtype, share in ((torch.bfloat16, most), (torch.float32, most / 2 + 0.005)):
        shape = PageShape(3, block, width, width, dtype)
        raw, coded = (Choice(each).build(CODEC, shape).block_bytes for each in ("raw", name))
        assert coded <= share * raw


def test_values_of_any_width_are_cut_into_equal_groups() -> None:
    """The largest divisor that is allowed: 40 of 80 channels."""
    codec = codec_of("int4", torch.float32, (32, 80, 80))
    assert codec.planes[1].width == 2 * (80 + 32 * 2)


FEEDS = [100, 25] + [1] * 25


@pytest.mark.parametrize("perhead", [False, True], ids=["together", "perhead"])
@pytest.mark.parametrize("slots", [False, True], ids=["tier", "cache"])
@pytest.mark.parametrize(("name", "near"), [("int8", 0.01), ("int4", 0.1)])
def test_only_recalled_blocks_change(name: str, near: float, slots: bool, perhead: bool) -> None:
    """Sinks, window and what blocks are found by are those of raw, bit by bit."""
    qkv = random_qkv(150, rows=2)
    raw = make_memory_layer(slots=slots, perhead=perhead)
    coded = make_memory_layer(slots=slots, perhead=perhead, codec=name)
    want, got = (feed(layer, qkv, FEEDS) for layer in (raw, coded))
    assert torch.equal(got[:, :, :28], want[:, :, :28])
    assert 0 < (got - want).abs().mean() < near * want.abs().mean()
    assert coded.stats().host_bytes < (0.6 if name == "int8" else 0.5) * raw.stats().host_bytes
    ours, theirs = coded.memory, raw.memory
    assert ours.sinks is not None
    assert theirs.sinks is not None
    assert all(map(torch.equal, ours.sinks, theirs.sinks))
    assert all(torch.equal(ours.recent[each], theirs.recent[each]) for each in ("k", "v"))


@pytest.mark.parametrize("name", CODES)
def test_summaries_are_of_the_original_keys(name: str) -> None:
    qkv = random_qkv(100)
    layers = [make_memory_layer(codec=each, selection="layer") for each in ("raw", name)]
    for layer in layers:
        feed(layer, qkv)
    want, got = (read_representatives(layer, 4, 16) for layer in layers)
    assert torch.equal(got, want)


@pytest.mark.parametrize("name", CODES)
def test_forks_and_what_is_rolled_back_read_the_same_codes(name: str) -> None:
    qkv = random_qkv(150)
    read, rest = tokens_of(qkv, 0, 120), tokens_of(qkv, 120)
    layer = make_memory_layer(codec=name)
    feed(layer, read)
    fork, state = layer.fork(), layer.checkpoint()
    first = feed(layer, rest)
    assert torch.equal(feed(fork, rest), first)
    layer.rollback(state)
    assert torch.equal(feed(layer, rest), first)


@pytest.mark.parametrize(("name", "near"), [("int8", 0.01), ("int4", 0.1)])
def test_full_attention_reads_blocks_too(name: str, near: float) -> None:
    """With prefill "dense" all that is kept is read, block by block."""
    qkv = random_qkv(150)
    want, got = (
        feed(make_memory_layer(codec=each, prefill="dense"), qkv, [100, 50])
        for each in ("raw", name)
    )
    assert 0 < (got - want).abs().mean() < near * want.abs().mean()


@pytest.mark.parametrize("group", [0, 7, 24, "many"])
def test_groups_that_are_refused(group: object) -> None:
    with pytest.raises(SettingsError, match=r"codec\.group = "):
        make_settings("inf-llm", block_size=64, codec={"name": "int4", "group": group})


@pytest.mark.parametrize("group", [8, 32, 64, 100])
def test_groups_that_are_accepted(group: int) -> None:
    make_settings("inf-llm", block_size=64, codec={"name": "int4", "group": group})


def test_smaller_groups_are_nearer_and_take_more() -> None:
    k, v = torch.randn(4, 64, 64), torch.randn(4, 64, 64)
    found = [codec_of("int4", torch.float32, (64, 64, 64), group=group) for group in (64, 16)]
    errors = [(there_and_back(codec, k, v)[0] - k).square().mean() for codec in found]
    assert errors[1] < errors[0] / 1.5
    assert found[1].block_bytes > found[0].block_bytes
