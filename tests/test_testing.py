"""`replay`, the public way to run one layer on given tensors."""

from __future__ import annotations

import pytest
import torch

from inf_llm.errors import SettingsError
from inf_llm.testing import replay
from tests.layers import EVERY_TYPE, MEMORY, random_qkv


@pytest.mark.parametrize("kind", [*EVERY_TYPE, "inf_llm", "stream-llm", "lm-infinite"])
def test_every_type_and_spelling(kind: str) -> None:
    settings = EVERY_TYPE.get(kind, EVERY_TYPE["inf-llm"] if "inf_" in kind else {"n_local": 8})
    got = replay(*random_qkv(30, value_width=8), feeds=[20, 10], kind=kind, **settings)
    assert got.o.shape == (1, 4, 30, 8)
    assert got.layer.seen == 30
    assert (got.topk is None) == (kind not in ("inf-llm", "inf_llm"))


@pytest.mark.parametrize("perhead", [False, True], ids=["together", "perhead"])
def test_recalled_blocks(perhead: bool) -> None:
    """One list per execution block; in it one ascending list per unit, empty ones included."""
    got = replay(
        *random_qkv(100, rows=2),
        feeds=[60, 20, *[1] * 20],
        kind="inf-llm",
        **MEMORY,
        perhead=perhead,
    )
    assert got.topk is not None
    assert len(got.topk) == 8 + 3 + 20
    assert all(len(step) == (8 if perhead else 2) for step in got.topk)
    assert got.topk[0] == [[]] * len(got.topk[0])
    assert all(len(unit) == 3 for unit in got.topk[-1])
    assert all(unit == sorted(set(unit)) for step in got.topk for unit in step)


def test_needs_no_gradients() -> None:
    q, k, v = (x.requires_grad_() for x in random_qkv(30))
    assert not replay(q, k, v, feeds=[30], kind="inf-llm", **MEMORY).o.requires_grad


@pytest.mark.parametrize("feeds", [[], [29], [31], [30, 0], [40, -10]], ids=str)
def test_feeds_that_do_not_fit(feeds: list[int]) -> None:
    with pytest.raises(SettingsError, match="must be positive and add up to the 30 tokens") as info:
        replay(*random_qkv(30), feeds=feeds, kind="origin")
    assert info.value.key == "feeds"


@pytest.mark.parametrize(
    ("kind", "settings", "key"),
    [
        ("inf-lm", {}, "type"),
        ("inf-llm", {"topkk": 3}, "topkk"),
        ("inf-llm", {"topk": 9, "max_cached_block": 8}, "topk"),
        ("stream-lm", {"topk": 3}, "topk"),
        ("origin", {"kernel": "none"}, "kernel"),
    ],
    ids=str,
)
def test_settings_are_checked(kind: str, settings: dict[str, object], key: str) -> None:
    with pytest.raises(SettingsError) as info:
        replay(*random_qkv(3), feeds=[3], kind=kind, **settings)  # type: ignore[arg-type]
    assert info.value.key == key


def test_inputs_are_left_alone() -> None:
    qkv = random_qkv(60)
    before = [x.clone() for x in qkv]
    for kind, settings in EVERY_TYPE.items():
        replay(*qkv, feeds=[40, 20], kind=kind, **settings)
    assert all(torch.equal(x, same) for x, same in zip(qkv, before, strict=True))
