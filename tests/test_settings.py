"""Settings are either coherent or refused with the name of the setting to change."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from inf_llm.errors import SettingsError
from inf_llm.settings import (
    InfLLMSettings,
    OriginSettings,
    WindowSettings,
    key_types,
    make_settings,
    settings_class,
    to_plain,
)
from inf_llm.variants import ATTENTION, EVICTION, INDEX, SCALING, SELECTION, SUMMARY

SPELLINGS = [
    ("origin", "origin"),
    ("inf-llm", "inf-llm"),
    ("inf_llm", "inf-llm"),
    ("infinite_lm", "infinite-lm"),
    ("stream-llm", "stream-lm"),
    ("stream_llm", "stream-lm"),
    ("STREAM-LM", "stream-lm"),
]

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "infllm2"}, "type", "did you mean 'inf-llm'?"),
    ({"tokp": 3}, "tokp", "did you mean 'topk'?"),
    ({"type": "stream-lm", "topk": 3}, "topk", "it belongs to inf-llm"),
    ({"type": "origin", "n_local": 3}, "n_local", "infinite-lm, stream-lm, inf-llm"),
    ({"topk": "16"}, "topk", "it is text"),
    ({"topk": True}, "topk", "not a whole number"),
    ({"topk": 16.0}, "topk", "not a whole number"),
    ({"topk": None}, "topk", "not a whole number"),
    ({"fattn": 1}, "fattn", "not true or false"),
    ({"cache_strategy": 3}, "cache_strategy", "not text"),
    ({"base": float("nan")}, "base", "not a finite number or null"),
    ({"base": float("inf")}, "base", "not a finite number or null"),
    ({"base": 1}, "base", "more than 1"),
    ({"base": -10000}, "base", "more than 1"),
    ({"distance_scale": 0}, "distance_scale", "more than 0"),
    ({"n_init": -1}, "n_init", "at least 0"),
    ({"n_local": 0}, "n_local", "at least 1"),
    ({"n_local": 2**40}, "n_local", "at most 2147483647"),
    ({"topk": 200}, "topk", "raise max_cached_block to 200"),
    ({"exc_block_size": 8192}, "exc_block_size", "raise n_local to 8192"),
    ({"repr_topk": 200}, "repr_topk", "raise block_size to 200"),
    ({"cache_strategy": "lfu"}, "cache_strategy", "did you mean 'lru'?"),
    ({"score_decay": 1.5, "cache_strategy": "lru-s"}, "score_decay", "from 0 to 1"),
    ({"score_decay": 0.5}, "score_decay", "set cache_strategy to 'lru-s'"),
    ({"decode_graph": True}, "decode_graph", "not offered until it has run on a GPU"),
    ({"eviction": {"name": "lru-s", "dekay": 1}}, "eviction", "did you mean 'decay'?"),
    ({"eviction": {"name": "lru", "decay": 1}}, "eviction", "set eviction to 'lru-s'"),
    ({"eviction": {"name": "lru-s", "decay": 2}}, "eviction", "eviction.decay = 2 is out of range"),
    ({"eviction": ["lru"]}, "eviction", "write {name: ...}"),
    ({"eviction": "lru", "cache_strategy": "fifo"}, "cache_strategy", "leave one out"),
    ({"eviction": {"name": "lru-s"}, "score_decay": 0.5}, "score_decay", "leave one out"),
    ({"index": "tork"}, "index", "did you mean 'torch'?"),
    ({"index": {"name": "faiss", "chunk": 3}}, "index", "set index to 'torch' or 'int8'"),
    ({"faiss": 1}, "faiss", "not true or false"),
    ({"faiss_ivf_from": 100}, "faiss_ivf_from", "set faiss to true"),
    ({"faiss": True, "faiss_ivf_from": 10}, "faiss_ivf_from", "at least 64"),
    ({"summary": {"name": "pages", "page_size": 12}}, "summary", "page_size = 12 does not divide"),
    ({"summary": {"name": "pages", "page_size": 0}}, "summary", "at least 1"),
    ({"codec": {"name": "int4", "group": 4}}, "codec", "codec.group = 4 is too small"),
    ({"codec": {"name": "int4", "group": 12}}, "codec", "group = 12 does not divide block_size"),
    ({"codec": {"name": "int8", "group": 8}}, "codec", "set codec to 'int4'"),
    ({"summary": "mean", "repr_topk": 4}, "repr_topk", "set summary to 'most-attended'"),
    ({"selection": {"name": "layer", "scores": "max"}}, "selection", "accepted: sum, softmax"),
    ({"index": {"name": "two-stage", "shortlist": 0}}, "index", "at least 1"),
    ({"prefill": "dens"}, "prefill", "did you mean 'dense'?"),
    ({"dense_up_to": 4096}, "dense_up_to", "does not go with prefill = 'sparse'"),
    ({"prefill": "auto", "dense_up_to": 0}, "dense_up_to", "at least 1"),
    ({"scaling": "ntk"}, "scaling", "write scaling: {name: ntk, factor: ...}"),
    ({"chunk_topk_calc": 0}, "chunk_topk_calc", "at least 1"),
    ({"native_window": "drop"}, "native_window", "accepted: keep, override"),
    ({"kernel": "trition"}, "kernel", "did you mean 'triton'?"),
    ({"kernel": "reference", "fattn": True}, "kernel", "contradicts fattn"),
]


@pytest.mark.parametrize(("given_name", "meant"), SPELLINGS)
def test_spellings_of_a_type(given_name: str, meant: str) -> None:
    assert settings_class(given_name).type == meant


@pytest.mark.parametrize(
    ("values", "key", "says"), REFUSED, ids=[f"{key}-{says}" for _, key, says in REFUSED]
)
def test_refused(values: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_settings(**values)
    assert caught.value.key == key
    assert says in str(caught.value)
    assert key in str(caught.value)


def test_a_dense_prompt_is_seen() -> None:
    """A model with two sets of rotary frequencies gets the one for what a query can see."""
    sizes = {"n_init": 4, "n_local": 64, "topk": 2, "block_size": 8, "exc_block_size": 32}
    sizes |= {"max_cached_block": 2}
    assert make_settings(**sizes).sees == 4 + 64 + 2 * 8
    assert make_settings(**sizes, prefill="auto").sees == 4 * (4 + 64 + 2 * 8)
    assert make_settings(**sizes, prefill="auto", dense_up_to=500).sees == 500
    assert make_settings(**sizes, prefill="auto", dense_up_to=50).sees == 4 + 64 + 2 * 8
    assert make_settings(**sizes, prefill="dense").sees > 10**9


@pytest.mark.parametrize("name", ATTENTION.own)
def test_defaults_are_accepted_and_frozen(name: str) -> None:
    settings = make_settings(name)
    assert settings.type == name
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.fattn = True  # type: ignore[misc]


def test_whole_numbers_do_for_fractions() -> None:
    assert make_settings(base=500000, distance_scale=1).base == 500000


def _values_of(cls: type[OriginSettings]) -> st.SearchStrategy[dict[str, Any]]:
    by_kind: dict[type, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(-2, 300),
        float: st.one_of(st.floats(), st.sampled_from([0.1, 1.0, 10000.0])),
    }
    by_key: dict[str, st.SearchStrategy[Any]] = {
        "cache_strategy": st.sampled_from([*EVICTION, "lfu"]),
        "eviction": st.sampled_from([*EVICTION, "lfu", {"name": "lru-s", "decay": 0.5}]),
        "index": st.sampled_from([None, *INDEX, "fais", {"name": "torch", "chunk": 3}]),
        "summary": st.sampled_from([*SUMMARY, "man", {"name": "pages", "page_size": 4}]),
        "selection": st.sampled_from([*SELECTION, {"name": "key-head", "scores": "softmax"}]),
        "scaling": st.sampled_from([*SCALING, {"name": "ntk", "factor": 2.0}]),
        "prefill": st.sampled_from(["sparse", "dense", "auto", "all"]),
        "native_window": st.sampled_from(["keep", "override", "none"]),
        "kernel": st.sampled_from(["auto", "reference", "fast"]),
    }
    kinds = key_types(cls).items()
    values = {
        key: by_key.get(
            key, by_kind.get(kind, st.none()) | (st.none() if optional else st.nothing())
        )
        for key, (optional, kind) in kinds
    }
    return st.fixed_dictionaries({}, optional=values)


@settings_of_hypothesis(deadline=None)
@given(
    st.sampled_from([settings_class(name) for name in ATTENTION.own]).flatmap(
        lambda c: st.tuples(st.just(c), _values_of(c))
    )
)
def test_either_coherent_or_refused_by_name(
    case: tuple[type[OriginSettings], dict[str, Any]],
) -> None:
    cls, values = case
    settings = _made(cls, values)
    if isinstance(settings, SettingsError):
        assert settings.key in key_types(cls)
        assert settings.key in str(settings)
        return
    plain = to_plain(settings)
    for key in values.keys() & plain.keys():
        both = [plain[key], values[key]]  # a published key may add an option to a bare name
        bare = [each["name"] if isinstance(each, dict) else each for each in both]
        assert bare[0] == bare[1]
        assert isinstance(values[key], str) or both[0] == both[1]
    _assert_coherent(settings)


def _made(cls: type[OriginSettings], values: dict[str, Any]) -> OriginSettings | SettingsError:
    try:
        return make_settings(cls.type, **values)
    except SettingsError as error:
        return error


def _assert_coherent(settings: OriginSettings) -> None:
    assert settings.base is None or 1 < settings.base < float("inf")
    assert 0 < settings.distance_scale < float("inf")
    if isinstance(settings, WindowSettings):
        assert settings.n_init >= 0
        assert settings.n_local >= 1
    if isinstance(settings, InfLLMSettings):
        assert 1 <= settings.topk <= settings.max_cached_block
        assert 1 <= settings.exc_block_size <= settings.n_local
        assert 1 <= settings.summary.options.get("tokens", 4) <= settings.block_size
        assert settings.eviction.name in EVICTION
        assert 0 <= settings.eviction.options.get("decay", 0) <= 1
