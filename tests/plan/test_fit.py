"""What fits a given memory, and the nearest settings that do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from inf_llm.config import RunConfig, load_config
from inf_llm.hf.outline import Outline, outline
from inf_llm.memory.codec import RawCodec
from inf_llm.plan.bytes import make_plan
from inf_llm.plan.fit import Room, _smaller, codecs, longest, nearest
from inf_llm.settings import InfLLMSettings, OriginSettings
from inf_llm.units import size
from inf_llm.variants import CODEC

TOKENS = 1 << 17


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_config("demo-inf-llm", ["model.dtype=float32"])


@pytest.fixture(scope="module")
def demo(config: RunConfig) -> Outline:
    return outline(config)


class Halves(RawCodec):
    """A codec from outside that takes half the bytes."""

    @property
    def block_bytes(self) -> int:
        return super().block_bytes // 2


@pytest.fixture
def with_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CODEC, "_added", {})
    CODEC.add("halves", Halves)


@pytest.mark.usefixtures("with_halves")
def test_a_codec_from_outside_has_its_row(demo: Outline, config: RunConfig) -> None:
    plain = make_plan(demo, config, TOKENS, apart=False)
    plans = {c.keys["model.codec"]: c.plan for c in codecs(demo, config, TOKENS, apart=False)}
    assert set(plans) == set(CODEC) - {"raw"}
    assert plans["halves"].held.blocks == plain.held.blocks // 2
    assert plans["halves"].held.index == plain.held.index


def test_what_lacks_is_said_with_both_figures(demo: Outline, config: RunConfig) -> None:
    planned = make_plan(demo, config, TOKENS, apart=False)
    assert Room(None, planned.host).lacks(planned) is None
    assert Room(None, None).lacks(planned) is None
    message = Room(None, planned.host - 1).lacks(planned)
    assert message == f"{size(planned.host)} are needed on the host, which has {size(planned.host)}"


@pytest.mark.usefixtures("with_halves")
@pytest.mark.parametrize("device", [None, 1 << 30], ids=["cpu", "gpu"])
def test_all_that_is_near_fits_and_can_be_pasted(
    demo: Outline, config: RunConfig, device: int | None
) -> None:
    room = Room(device, make_plan(demo, config, TOKENS, device is not None).host * 3 // 4)
    changes = nearest(demo, config, TOKENS, room)
    keys = [change.keys for change in changes]
    assert any("model.codec" in each for each in keys)
    assert {"model.dtype": "bfloat16"} in keys
    for change in changes:
        assert room.lacks(change.plan) is None
        merged = config.to_dict()
        data = yaml.safe_load("\n".join(change.yaml()))
        merged["model"] |= data.pop("model", {})
        load_config("demo-inf-llm", change.words().split())  # also as overrides of a command
        assert {**merged, **data}["max_len"] == change.keys.get("max_len", config.max_len)


def test_a_smaller_window_fits_a_small_device(demo: Outline, config: RunConfig) -> None:
    wide = load_config("demo-inf-llm", ["model.n_local=4096", "model.dtype=float32"])
    needed = make_plan(demo, wide, 8192, apart=True).device
    found = nearest(demo, wide, 8192, Room(needed * 3 // 4, None))
    assert any("model.n_local" in change.keys for change in found)


def test_the_longest_text_fits_and_a_longer_one_does_not(demo: Outline, config: RunConfig) -> None:
    room = Room(None, 10**9)
    length = longest(demo, config, room)
    assert room.lacks(make_plan(demo, config, length, False)) is None
    assert room.lacks(make_plan(demo, config, length * 102 // 100, False)) is not None
    assert longest(demo, config, Room(None, 10**6)) == 0


def test_full_attention_is_offered_the_memory(demo: Outline, config: RunConfig) -> None:
    full: Any = replace(config, attention=OriginSettings())
    host = make_plan(demo, full, 1 << 20, apart=True).device // 2
    found = nearest(demo, full, 1 << 20, Room(host, None))
    assert found[0].keys == {"model.type": "inf-llm"}


def test_a_smaller_window_is_never_a_larger_one() -> None:
    config = load_config("demo-inf-llm", ["model.n_local=64", "model.exc_block_size=64"])
    assert isinstance(config.attention, InfLLMSettings)
    for power in range(1, 12):
        keys = _smaller(config.attention, power)
        assert all(value <= getattr(config.attention, key[6:]) for key, value in keys.items())
