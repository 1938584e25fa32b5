"""LM-Infinite's top-k of the middle against a dense statement."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor

import inf_llm
from inf_llm.attention.middle import MiddleAttention
from inf_llm.attention.window import InfiniteLMAttention
from inf_llm.errors import SettingsError
from inf_llm.settings import make_settings
from tests.layers import Qkv, feed, make_layer, random_qkv, rows_of, rule, tokens_of


def spun(x: Tensor, position: int) -> Tensor:
    half = x.shape[-1] // 2
    angle = position * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    a, b = x[..., :half], x[..., half:]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def dense(qkv: Qkv, n_init: int, n_local: int, topk: int, softcap: float | None = None) -> Tensor:
    """Token by token, from the rule alone, in float64."""
    q, k, v = (x.double() for x in qkv)
    shared, width = q.shape[1] // k.shape[1], q.shape[3]
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=torch.float64)
    for b, h, i in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        keys, values = k[b, h // shared], v[b, h // shared]
        at = {
            distance: keys @ spun(q[b, h, i], distance) for distance in (n_local - 1, n_local // 2)
        }
        scores = {
            j: keys[j] @ spun(q[b, h, i], i - j) for j in range(max(0, i - n_local + 1), i + 1)
        }
        gone = range(max(0, i - n_local + 1))
        scores |= {j: at[n_local - 1][j] for j in gone if j < n_init}
        middle = [j for j in gone if j >= n_init]
        middle.sort(key=lambda j: -float(at[n_local // 2][j]))
        scores |= {j: at[n_local // 2][j] for j in middle[:topk]}
        logits = torch.stack(list(scores.values())) / math.sqrt(width)
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        out[b, h, i] = logits.softmax(0) @ values[list(scores)]
    return out


@functools.lru_cache
def known(n_init: int, n_local: int, topk: int) -> tuple[Qkv, Tensor]:
    qkv = random_qkv(90, (2, 1), rows=2, value_width=8)
    return qkv, dense(qkv, n_init, n_local, topk).float()


FEEDS = {"whole": [90], "ragged": [30, 1, 20, 30, 9], "decode": [1] * 90}


@pytest.mark.parametrize("feeds", FEEDS.values(), ids=FEEDS)
@pytest.mark.parametrize(
    ("n_init", "n_local", "topk"), [(4, 24, 3), (0, 24, 1), (4, 9, 500), (40, 8, 2), (1, 200, 5)]
)
def test_equals_the_dense_statement(n_init: int, n_local: int, topk: int, feeds: list[int]) -> None:
    layer = make_layer("infinite-lm", n_init=n_init, n_local=n_local, topk_middle=topk)
    qkv, wanted = known(n_init, n_local, topk)
    torch.testing.assert_close(feed(layer, qkv, feeds), wanted, atol=1e-5, rtol=1e-4)


def test_keys_scored_in_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inf_llm.attention.middle._CHUNK", 7)
    qkv = random_qkv(130)
    layer = make_layer("infinite-lm", topk_middle=10)
    wanted = dense(qkv, 4, 24, 10).float()
    torch.testing.assert_close(feed(layer, qkv), wanted, atol=1e-5, rtol=1e-4)


def test_soft_caps_apply_to_the_middle() -> None:
    qkv = random_qkv(100)
    layer = make_layer("infinite-lm", topk_middle=3)
    wanted = dense(qkv, 4, 24, 3, softcap=2.0).float()
    got = feed(layer, qkv, how=rule(softcap=2.0))
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_off_by_default_and_different_when_on() -> None:
    qkv = random_qkv(130)
    off, on = make_layer("infinite-lm"), make_layer("infinite-lm", topk_middle=3)
    assert type(off) is InfiniteLMAttention
    assert type(on) is MiddleAttention
    difference = (feed(off, qkv) - feed(on, qkv)).abs().amax((0, 1, 3))
    assert float(difference[:28].max()) < 1e-6, "nothing is in the middle yet"
    assert float(difference[40:].max()) > 0.1


def test_everything_of_the_middle_is_kept() -> None:
    layer = make_layer("infinite-lm", topk_middle=3)
    feed(layer, random_qkv(2000))
    kept = 2 * (2000 - 4) * 2 * 16 * 4
    assert kept <= layer.stats().device_bytes <= 3 * kept


def test_copies_rows_and_going_back() -> None:
    qkv = random_qkv(120, rows=3)
    whole = feed(make_layer("infinite-lm", topk_middle=3), qkv)[:, :, 80:]
    layer = make_layer("infinite-lm", topk_middle=3)
    feed(layer, tokens_of(qkv, 0, 80))
    twin = layer.fork()
    layer.record()
    feed(layer, tokens_of(random_qkv(120, rows=3, seed=9), 80))  # another continuation
    torch.testing.assert_close(feed(twin, tokens_of(qkv, 80)), whole)
    layer.crop(40)
    layer.select_rows(torch.tensor([2, 0, 2]))
    got = feed(layer, rows_of(tokens_of(qkv, 80), [2, 0, 2]))
    torch.testing.assert_close(got, whole[[2, 0, 2]])


def test_memory_nobody_wrote_is_never_read(poisoned_memory: None) -> None:
    outputs = feed(make_layer("infinite-lm", topk_middle=3), random_qkv(300), [170, 100] + [1] * 30)
    assert outputs.isfinite().all()


def test_only_layers_from_the_one_named() -> None:
    settings = make_settings("infinite-lm", topk_middle=5, middle_from_layer=2)
    chosen = [settings.for_layer(index).topk_middle for index in range(4)]  # type: ignore[attr-defined]
    assert chosen == [0, 0, 5, 5]


def test_a_patched_model_looks_at_the_middle_from_that_layer_on() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).eval()
    inf_llm.patch(model, type="infinite-lm", n_local=16, topk_middle=2, middle_from_layer=1)
    with torch.no_grad():
        cache = model(torch.arange(3, 43)[None]).past_key_values
    kinds = [type(layer.rows.members[0]) for layer in cache.memories]
    assert kinds == [InfiniteLMAttention, MiddleAttention, MiddleAttention]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"topk_middle": -1}, "topk_middle = -1 is too small"),
        ({"middle_from_layer": 3}, "middle_from_layer = 3 has no effect with topk_middle = 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_settings("infinite-lm", **settings)
