"""The fast path against the dense statement: lengths, feeds, dtypes, shapes, settings, models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.attention.base import Rule
from inf_llm.kernels import Scoring
from inf_llm.rope import Rope
from inf_llm.settings import make_settings
from inf_llm.testing import replay
from inf_llm.variants import ATTENTION
from tests.attention.dense import Score, Turn, dense
from tests.attention.draws import examples, feeds_of, memory_settings
from tests.extras import changes
from tests.layers import EVERY_TYPE, MEMORY, WINDOW, Qkv, feed, random_qkv

DEPENDS_ON_ROUNDING = 1e-4

FEEDS = {
    "one": [150],
    "chunks": [64, 64, 16, 6],
    "ragged": [1, 29, 7, 64, 1, 1, 33, 13, 1],
    "decode": [40] + [1] * 110,
}


def assert_as_dense(
    qkv: Qkv, kind: str, feeds: list[int], tolerance: float = 2e-5, **settings: Any
) -> None:
    """Outputs agree, and so do the choices, unless rounding alone could make them differ."""
    got = replay(*qkv, feeds=feeds, kind=kind, **settings)
    device_free = [x.cpu().double() for x in qkv]
    turn = Turn(settings.pop("base", 10000.0), settings.pop("distance_scale", 1.0))
    want = dense(*device_free, kind=kind, feeds=feeds, turn=turn, chosen=got.topk, **settings)
    torch.testing.assert_close(
        got.o.cpu().double(), torch.from_numpy(want.o), atol=tolerance, rtol=tolerance
    )
    if got.topk is not None:
        assert got.topk == want.topk
    if want.mass_gap > DEPENDS_ON_ROUNDING * tolerance / 2e-5:
        assert want.deficit < 100 * tolerance


@pytest.mark.parametrize("feeds", FEEDS.values(), ids=FEEDS)
@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_feeds(kind: str, feeds: list[int], device: torch.device) -> None:
    qkv = random_qkv(150, rows=2, device=device)
    assert_as_dense(qkv, kind, feeds, **EVERY_TYPE[kind])


@pytest.mark.parametrize("kind", EVERY_TYPE)
@pytest.mark.parametrize("tokens", [1, 2, 8, 23, 24, 25, 28, 29, 34, 35, 65, 97])
def test_lengths(kind: str, tokens: int) -> None:
    assert_as_dense(random_qkv(tokens), kind, [tokens], **EVERY_TYPE[kind])


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1), (1, 1), (6, 2)], ids=str)
@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_heads(kind: str, heads: tuple[int, int]) -> None:
    assert_as_dense(random_qkv(90, heads), kind, [60, 20] + [1] * 10, **EVERY_TYPE[kind])


@pytest.mark.parametrize("value_width", [8, 24])
@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_values_of_another_width(kind: str, value_width: int) -> None:
    qkv = random_qkv(90, value_width=value_width)
    assert_as_dense(qkv, kind, [60, 20] + [1] * 10, **EVERY_TYPE[kind])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_half_precision(kind: str, dtype: torch.dtype, device: torch.device) -> None:
    qkv = random_qkv(120, rows=2, dtype=dtype, device=device)
    loose = 0.06 if dtype == torch.bfloat16 else 0.008
    assert_as_dense(qkv, kind, [80, 30] + [1] * 10, loose, **EVERY_TYPE[kind])


@pytest.mark.parametrize("positions", [{"base": 500.0}, {"distance_scale": 0.25}], ids=str)
@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_positions(kind: str, positions: dict[str, float]) -> None:
    assert_as_dense(random_qkv(90), kind, [70] + [1] * 20, **positions, **EVERY_TYPE[kind])


MEMORY_CHANGES: dict[str, dict[str, Any]] = {
    "no sinks": {"n_init": 0},
    "many sinks": {"n_init": 40},
    "every block": {"topk": 50, "max_cached_block": 50},
    "one block": {"topk": 1},
    "per head": {"perhead": True},
    "per head, every block": {"perhead": True, "topk": 50, "max_cached_block": 50},
    "mean of all tokens": {"repr_topk": 6},
    "one representative": {"repr_topk": 1},
    "blocks of one token": {"block_size": 1, "repr_topk": 1},
    "blocks as long as the window": {"block_size": 24},
    "window of one": {"n_local": 1, "exc_block_size": 1},
    "block as long as the window": {"exc_block_size": 24},
    "token by token": {"exc_block_size": 1},
    "one choice for four steps": {"reselect_every": 4},
    "contiguous": {"far_positions": "contiguous"},
    "contiguous per head": {"far_positions": "contiguous", "perhead": True},
    "contiguous, no sinks": {"far_positions": "contiguous", "n_init": 0},
    "native": {"far_positions": "native"},
    "native per head": {"far_positions": "native", "perhead": True},
    "native, one choice for four steps": {"far_positions": "native", "reselect_every": 4},
    "faiss": {"faiss": True},
    "faiss per head": {"faiss": True, "perhead": True},
    "scored in pieces": {"chunk_topk_calc": 2},
    "lru-s": {"cache_strategy": "lru-s", "max_cached_block": 3},
    "fifo per head": {"cache_strategy": "fifo", "max_cached_block": 3, "perhead": True},
}


@pytest.mark.parametrize("change", changes(MEMORY_CHANGES.values()), ids=list(MEMORY_CHANGES))
def test_memory_settings(change: dict[str, Any], device: torch.device) -> None:
    qkv = random_qkv(130, rows=2, device=device)
    assert_as_dense(qkv, "inf-llm", [90, 25] + [1] * 15, **(MEMORY | change))


@pytest.mark.parametrize("change", [{"n_init": 0}, {"n_init": 60}, {"n_local": 1}], ids=str)
@pytest.mark.parametrize("kind", ["infinite-lm", "stream-lm"])
def test_window_settings(kind: str, change: dict[str, int]) -> None:
    assert_as_dense(random_qkv(130), kind, [90, 25] + [1] * 15, **(WINDOW | change))


@pytest.mark.parametrize("kind", ["origin", "infinite-lm", "stream-lm"])
def test_feeds_longer_than_what_is_computed_at_once(kind: str) -> None:
    settings = {} if kind == "origin" else {"n_init": 5, "n_local": 300}
    assert_as_dense(random_qkv(1100, (2, 1)), kind, [1090] + [1] * 10, **settings)


def test_the_choice_is_the_dense_one_without_help() -> None:
    """Elsewhere the dense statement follows the fast path's blocks; here it chooses by itself."""
    qkv = random_qkv(200, seed=5)
    feeds = [128, 20] + [1] * 52
    for perhead in (False, True):
        settings = MEMORY | {"perhead": perhead}
        got = replay(*qkv, feeds=feeds, kind="inf-llm", **settings)
        want = dense(*qkv, kind="inf-llm", feeds=feeds, **settings)
        assert min(want.mass_gap, want.score_gap) > 1e-5, "choose another seed"
        assert got.topk == want.topk
        assert len({tuple(unit) for step in want.topk for unit in step}) > 20


ROTATIONS = {
    "none": Turn(base=None),
    "interleaved": Turn(interleaved=True),
    "first half": Turn(span=8),
    "middle, interleaved": Turn(start=4, span=8, interleaved=True),
    "amplitude": Turn(amplitude=1.3),
    "amplitude of a part": Turn(start=8, span=8, amplitude=0.8),
}


def package_rope(turn: Turn, width: int) -> Rope:
    """The package's way to say the same."""
    if turn.base is None:
        return Rope.none()
    pairs = (width if turn.span is None else turn.span) // 2
    frequencies = turn.scale * turn.base ** (-torch.arange(pairs).double() / pairs)
    return Rope(frequencies, turn.amplitude, turn.start, turn.interleaved)


@pytest.mark.parametrize("turn", ROTATIONS.values(), ids=ROTATIONS)
@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_rotations(kind: str, turn: Turn) -> None:
    qkv, settings, feeds = random_qkv(100), EVERY_TYPE[kind], [70, 20] + [1] * 10
    layer = ATTENTION.get(kind)(package_rope(turn, 16), make_settings(kind, **settings))
    got = feed(layer, qkv, feeds)
    want = dense(*qkv, kind=kind, feeds=feeds, turn=turn, **settings)
    assert min(want.mass_gap, want.score_gap) > 1e-5, "choose another seed"
    torch.testing.assert_close(got.double(), torch.from_numpy(want.o), atol=2e-5, rtol=2e-5)


SCORES = {
    "scale": Score(scale=0.4),
    "soft cap": Score(softcap=1.5),
    "learned sink": Score(sink=torch.tensor([2.0, -1.0, 0.5, 4.0]).double().numpy()),
    "all three": Score(0.4, 2.0, torch.tensor([2.0, -1.0, 0.5, 4.0]).double().numpy()),
}


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_ways_to_score(kind: str, score: Score) -> None:
    qkv, settings, feeds = random_qkv(100), EVERY_TYPE[kind], [70, 20] + [1] * 10
    layer = ATTENTION.get(kind)(Rope.from_base(16, 10000.0), make_settings(kind, **settings))
    sink = None if score.sink is None else torch.from_numpy(score.sink).float()
    how = Rule(Scoring(score.scale or 0.25, score.softcap), sink)
    got = feed(layer, qkv, feeds, how)
    want = dense(*qkv, kind=kind, feeds=feeds, score=score, **settings)
    assert min(want.mass_gap, want.score_gap) > 1e-5, "choose another seed"
    torch.testing.assert_close(got.double(), torch.from_numpy(want.o), atol=2e-5, rtol=2e-5)


def test_a_wrong_setting_is_seen() -> None:
    """The control: inputs are sharp enough that each of these changes moves the outputs."""
    qkv = random_qkv(150)
    right = replay(*qkv, feeds=[150], kind="inf-llm", **MEMORY).o
    changes = {"n_local": 25, "n_init": 5, "topk": 2, "block_size": 7, "repr_topk": 1}
    for key, value in changes.items():
        wrong = replay(*qkv, feeds=[150], kind="inf-llm", **(MEMORY | {key: value})).o
        assert (wrong - right).abs().max() > 0.05, key


@examples(40)
@given(st.data())
def test_any_settings_any_feeds(data: st.DataObject) -> None:
    settings = data.draw(memory_settings())
    feeds = data.draw(feeds_of(120))
    heads = data.draw(st.sampled_from([(1, 1), (2, 1), (4, 2), (3, 3)]))
    widths = data.draw(st.sampled_from([(8, 8), (16, 8), (8, 12)]))
    rows, seed = data.draw(st.integers(1, 2)), data.draw(st.integers(0, 99))
    qkv = random_qkv(sum(feeds), heads, *widths, rows=rows, seed=seed)
    assert_as_dense(qkv, "inf-llm", feeds, **settings)


@examples(30)
@given(st.data())
def test_any_window_any_feeds(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["infinite-lm", "stream-lm"]))
    settings = {"n_init": data.draw(st.integers(0, 20)), "n_local": data.draw(st.integers(1, 50))}
    feeds = data.draw(feeds_of(150))
    qkv = random_qkv(sum(feeds), (2, 1), seed=data.draw(st.integers(0, 99)))
    assert_as_dense(qkv, kind, feeds, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_long_texts(seed: int) -> None:
    settings = MEMORY | {"n_local": 64, "exc_block_size": 32, "block_size": 16, "topk": 5}
    qkv = random_qkv(1500, rows=2, seed=seed)
    assert_as_dense(qkv, "inf-llm", [1000, 37, 400] + [1] * 63, **settings)
