"""Where far keys stand: against the dense statement, against full attention, and over branches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.rope import Rope
from inf_llm.settings import InfLLMSettings, make_settings
from inf_llm.testing import replay
from inf_llm.variants import FAR_POSITIONS
from tests.attention.dense import dense
from tests.attention.draws import examples, feeds_of, memory_settings
from tests.attention.test_dense import FEEDS, ROTATIONS, assert_as_dense, package_rope
from tests.layers import MEMORY, feed, joined, make_memory_layer, random_qkv, rows_of, tokens_of

CLOSE: dict[str, Any] = {"atol": 5e-6, "rtol": 5e-6}
IN_ORDER = ("contiguous", "native")
EVERY_BLOCK = MEMORY | {"topk": 50, "max_cached_block": 50}

every_rule = pytest.mark.parametrize("rule", FAR_POSITIONS.own)
in_order = pytest.mark.parametrize("rule", IN_ORDER)
choosers = pytest.mark.parametrize("perhead", [False, True], ids=["together", "perhead"])


def outputs(feeds: list[int], kind: str = "inf-llm", **settings: Any) -> Tensor:
    return replay(*random_qkv(sum(feeds)), feeds=feeds, kind=kind, **settings).o


@choosers
@pytest.mark.parametrize("feeds", FEEDS.values(), ids=FEEDS)
@in_order
def test_feeds(rule: str, feeds: list[int], perhead: bool, device: torch.device) -> None:
    qkv = random_qkv(150, rows=2, device=device)
    settings = MEMORY | {"far_positions": rule, "perhead": perhead}
    assert_as_dense(qkv, "inf-llm", feeds, **settings)


@in_order
@pytest.mark.parametrize("tokens", [1, 24, 25, 28, 29, 34, 35, 65])
def test_lengths(rule: str, tokens: int) -> None:
    settings = MEMORY | {"far_positions": rule, "exc_block_size": 24}
    assert_as_dense(random_qkv(tokens), "inf-llm", [tokens], **settings)


@in_order
@pytest.mark.parametrize("turn", ROTATIONS.values(), ids=ROTATIONS)
def test_rotations(rule: str, turn: Any) -> None:
    qkv, feeds = random_qkv(100), [70, 20] + [1] * 10
    settings = MEMORY | {"far_positions": rule}
    chosen = make_settings("inf-llm", **settings)
    assert isinstance(chosen, InfLLMSettings)
    got = feed(InfLLMAttention(package_rope(turn, 16), chosen), qkv, feeds)
    want = dense(*qkv, kind="inf-llm", feeds=feeds, turn=turn, **settings)
    assert min(want.mass_gap, want.score_gap) > 1e-5, "choose another seed"
    torch.testing.assert_close(got.double(), torch.from_numpy(want.o), atol=2e-5, rtol=2e-5)


@in_order
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(rule: str, dtype: torch.dtype, device: torch.device) -> None:
    qkv = random_qkv(120, rows=2, dtype=dtype, device=device)
    loose = 0.06 if dtype == torch.bfloat16 else 0.008
    settings = MEMORY | {"far_positions": rule}
    assert_as_dense(qkv, "inf-llm", [80, 30] + [1] * 10, loose, **settings)


@choosers
@in_order
@pytest.mark.parametrize("feeds", FEEDS.values(), ids=FEEDS)
def test_with_every_block_it_is_full_attention(rule: str, feeds: list[int], perhead: bool) -> None:
    """Nothing is cut out, so that both rules leave every key where it was."""
    got = outputs(feeds, **EVERY_BLOCK, far_positions=rule, perhead=perhead)
    torch.testing.assert_close(got, outputs(feeds, "origin"), atol=2e-5, rtol=2e-5)


@examples(20)
@given(st.data())
def test_with_every_block_it_is_full_attention_anyhow(data: st.DataObject) -> None:
    settings = data.draw(memory_settings()) | {"topk": 200, "max_cached_block": 200}
    settings |= {"far_positions": data.draw(st.sampled_from(IN_ORDER)), "reselect_every": 1}
    feeds = data.draw(feeds_of(120))
    torch.testing.assert_close(
        outputs(feeds, **settings), outputs(feeds, "origin"), atol=2e-5, rtol=2e-5
    )


def test_rules_differ() -> None:
    """The control: inputs are sharp enough, and published positions are not full attention."""
    rules = {rule: outputs([150], **MEMORY, far_positions=rule) for rule in FAR_POSITIONS.own}
    for rule, other in (("contiguous", "native"), ("native", "one-distance")):
        assert (rules[rule] - rules[other])[:, :, -40:].abs().max() > 0.05
    published = outputs([150], **EVERY_BLOCK, far_positions="one-distance")
    assert (published - outputs([150], "origin")).abs().max() > 0.05
    assert torch.equal(rules["one-distance"], outputs([150], **MEMORY))


@in_order
def test_a_query_whose_window_holds_everything_is_left_alone(rule: str) -> None:
    """Also in an execution block whose last query has lost tokens; published is another rule."""
    settings = MEMORY | {"exc_block_size": 24, "n_local": 24}
    first = slice(None), slice(None), slice(0, 24)
    want = outputs([20, 20], "origin")[first]
    got = outputs([20, 20], **settings, far_positions=rule)[first]
    torch.testing.assert_close(got, want, **CLOSE)
    assert (outputs([20, 20], **settings)[first] - want).abs().max() > 0.05


def test_contiguous_forgets_how_much_was_cut_out() -> None:
    """Sinks and window are the same wherever the window is; under native they are not."""
    qkv = random_qkv(300)
    sinks, late = tokens_of(qkv, 0, 4), tokens_of(qkv, 200, 300)
    settings: dict[str, Any] = {**MEMORY, "topk": 1, "exc_block_size": 1, "n_local": 60}
    for rule, same in (("contiguous", True), ("native", False)):
        answers = []
        for middle in (tokens_of(qkv, 4, 64), tokens_of(qkv, 4, 124)):
            layer = make_memory_layer(**settings, far_positions=rule)
            text = joined(sinks, middle, late)
            layer.memory.recall = lambda *_: None  # type: ignore[method-assign]
            answers.append(feed(layer, text, [1] * text[0].shape[2])[:, :, -1])
        assert torch.allclose(*answers, atol=2e-5) == same


@every_rule
@pytest.mark.parametrize("slots", [False, True], ids=["tier", "slots"])
def test_keys_are_kept_as_they_came(rule: str, slots: bool) -> None:
    """A rule turns copies: what is recalled once more is not turned twice."""
    k = random_qkv(150)[1]
    layer = make_memory_layer(slots=slots, far_positions=rule, reselect_every=3)
    feed(layer, random_qkv(150), [100] + [1] * 50)
    assert layer.recalled is not None
    size = MEMORY["block_size"]
    for at, block in enumerate(layer.recalled.blocks[0, 0].tolist()):
        first = MEMORY["n_init"] + block * size
        kept = layer.recalled.k[0, :, at * size : (at + 1) * size]
        assert torch.equal(kept, k[0, :, first : first + size])


@every_rule
@choosers
@pytest.mark.parametrize("slots", [False, True], ids=["tier", "slots"])
def test_branches_and_rows(rule: str, slots: bool, perhead: bool) -> None:
    """Rows that are chosen, a fork of them and a crop of the fork go on as themselves."""
    how = {"far_positions": rule, "perhead": perhead, "slots": slots}
    text, guess, rest = (random_qkv(n, rows=3, seed=n) for n in (90, 13, 40))
    layer, rows = make_memory_layer(**how), [2, 0, 2]
    feed(layer, text)
    layer.select_rows(torch.tensor(rows))
    twin = layer.fork()
    twin.decode_from(90)
    twin.record()
    feed(twin, guess)
    twin.crop(13)
    feeds = [20] + [1] * 20
    for branch in (layer, twin):
        branch.decode_from(None)
        want = feed(make_memory_layer(**how), joined(rows_of(text, rows), rest), [90, *feeds])
        torch.testing.assert_close(feed(branch, rest, feeds), want[:, :, 90:], **CLOSE)


@every_rule
def test_blocks_are_searched_for_alike(rule: str) -> None:
    """What a block is found by is made of unrotated keys under every rule."""
    made = FAR_POSITIONS.get(rule)(Rope.from_base(16, 1e4), 24)
    q = torch.randn(1, 4, 8, 16)
    assert torch.equal(made.search_query(q), made.rope.rotate_far(q, 23))
