"""What hypothesis draws for attention: settings that are accepted, and ways to feed a text."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from inf_llm.variants import FAR_POSITIONS
from tests.extras import FAISS


def examples(count: int) -> Callable[[Any], Any]:
    """Settings of a property test of `count` examples, the same ones on every run."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@st.composite
def memory_settings(draw: st.DrawFn) -> dict[str, Any]:
    """Any accepted inf-llm settings of a small size."""
    n_local = draw(st.integers(1, 32))
    block_size = draw(st.integers(1, 10))
    topk = draw(st.integers(1, 6))
    return {
        "n_init": draw(st.integers(0, 8)),
        "n_local": n_local,
        "exc_block_size": draw(st.integers(1, n_local)),
        "block_size": block_size,
        "repr_topk": draw(st.integers(1, block_size)),
        "topk": topk,
        "max_cached_block": draw(st.integers(topk, topk + 4)),
        "perhead": draw(st.booleans()),
        "far_positions": draw(st.sampled_from(FAR_POSITIONS.own)),
        "reselect_every": draw(st.sampled_from([1, 1, 1, 3])),
        **draw(traffic_settings()),
    }


def traffic_settings() -> st.SearchStrategy[dict[str, Any]]:
    """Settings that change what has to be copied or how it is found, but never a result."""
    return st.fixed_dictionaries(
        {
            "cache_strategy": st.sampled_from(["lru", "fifo", "lru-s"]),
            "faiss": st.booleans() if FAISS else st.just(False),
            "chunk_topk_calc": st.none() | st.integers(1, 8),
        }
    )


def feeds_of(most: int) -> st.SearchStrategy[list[int]]:
    """Lengths of successive feeds, long ones and decode steps mixed, up to `most` tokens."""
    one = st.one_of(
        st.integers(1, 60).map(lambda n: [n]), st.integers(1, 10).map(lambda n: [1] * n)
    )
    return st.lists(one, min_size=5, max_size=12).map(lambda parts: _first(parts, most))


def _first(parts: list[list[int]], most: int) -> list[int]:
    feeds = list(itertools.chain.from_iterable(parts))
    ends = list(itertools.accumulate(feeds))
    kept = [feed for feed, end in zip(feeds, ends, strict=True) if end <= most]
    return kept or [most]
