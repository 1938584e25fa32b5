"""Every row of every kind does what its kind promises, and rows from outside are rows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm import registry as registry_module
from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.choice import Choice
from inf_llm.config import load_config
from inf_llm.errors import ConfigError, SettingsError
from inf_llm.memory.codec import PageShape, Plane
from inf_llm.memory.evict import FirstInFirstOut
from inf_llm.rope import Rope
from inf_llm.scaling import rescale
from inf_llm.settings import make_settings, to_plain
from inf_llm.testing import replay
from inf_llm.variants import (
    ATTENTION,
    CALLS,
    CODEC,
    EVICTION,
    FAR_POSITIONS,
    INDEX,
    KERNEL,
    NEEDLE,
    SCALING,
    SELECTION,
    SUMMARY,
    TIER,
)
from tests.layers import MEMORY, feed, make_memory_layer, random_qkv
from tests.tiny import SETTINGS, tiny_model

OUTSIDE = Path(__file__).parent / "outside"
KINDS = {
    "attention": ATTENTION,
    "eviction": EVICTION,
    "index": INDEX,
    "kernel": KERNEL,
    "scaling": SCALING,
    "needle": NEEDLE,
    "summary": SUMMARY,
    "selection": SELECTION,
    "far_positions": FAR_POSITIONS,
    "codec": CODEC,
    "tier": TIER,
    "calls": CALLS,
}
ROWS = [(kind, row) for kind, registry in KINDS.items() for row in registry.own]


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The distribution in `tests/outside`, as if it were installed."""
    monkeypatch.syspath_prepend(OUTSIDE)
    registry_module._installed.cache_clear()
    yield __import__("outside_variants")
    registry_module._installed.cache_clear()


@pytest.mark.parametrize(("kind", "row"), ROWS)
def test_options_are_those_that_the_class_takes(kind: str, row: str, tmp_path: Path) -> None:
    """A row that says options without a class for them, or the reverse, fails when it is built."""
    if kind in ("attention", "kernel", "needle"):
        pytest.skip("built with more than options, by tests of their own")
    if row in ("faiss", "ivf"):
        pytest.importorskip("faiss")
    needed = {"factor": 2.0, "trained_len": 64, "path": str(tmp_path)}
    settings = KINDS[kind].options(row)
    fields = {} if settings is None else settings.__dataclass_fields__
    choice = Choice(row, {name: value for name, value in needed.items() if name in fields})
    choice.check(kind, KINDS[kind])
    given = {
        "summary": (8,),
        "selection": (4, 2, 4),
        "far_positions": (Rope.from_base(16, 1e4), 24),
        "codec": (PageShape(2, 8, 16, 16, torch.float32),),
        "tier": ((Plane(4, torch.float32),),),
    }.get(kind, ())
    if row == "two-stage":
        given = (SELECTION.get("layer")(4, 2, 4),)
    if row == "pinned" and not torch.accelerator.is_available():
        with pytest.raises(SettingsError, match="there is no GPU here"):
            choice.build(KINDS[kind], *given)
        return
    assert choice.build(KINDS[kind], *given) is not None
    assert Choice.of(kind, choice.plain()) == choice


@pytest.mark.parametrize("kind", ATTENTION.own)
def test_attention_types(kind: str) -> None:
    """One feed or many give the same, as far as no token has left the window; forks are apart."""
    sizes = {} if kind == "origin" else {"n_local": 64}
    sizes |= {"exc_block_size": 8} if kind == "inf-llm" else {}
    settings = make_settings(kind, **sizes)
    assert settings.type == kind
    layer = ATTENTION.get(kind)(Rope.from_base(16, 1e4), settings)
    qkv = random_qkv(40)
    whole = feed(layer, qkv)
    twin = ATTENTION.get(kind)(Rope.from_base(16, 1e4), settings)
    parts = feed(twin, qkv, [16, 23, 1])
    torch.testing.assert_close(parts, whole, atol=2e-6, rtol=2e-6)
    branch, more = layer.fork(), random_qkv(5, seed=1)
    assert torch.equal(feed(branch, more), feed(layer, more))
    assert layer.stats().tokens == 45


@pytest.mark.parametrize("row", FAR_POSITIONS.own)
def test_position_rules(row: str) -> None:
    """They move what is out of the window alone, and cost no more memory than another."""
    qkv, sizes = random_qkv(80), MEMORY | {"exc_block_size": 1}
    feeds, near = [1] * 80, slice(0, MEMORY["n_local"])
    full = replay(*qkv, feeds=feeds, kind="origin").o
    got = replay(*qkv, feeds=feeds, kind="inf-llm", **sizes, far_positions=row)
    torch.testing.assert_close(got.o[:, :, near], full[:, :, near], atol=2e-6, rtol=2e-6)
    assert (got.o - full).abs().max() > 0.05
    plain = replay(*qkv, feeds=feeds, kind="inf-llm", **sizes)
    for size in ("device_bytes", "host_bytes", "index_bytes"):
        assert getattr(got.layer.stats(), size) == getattr(plain.layer.stats(), size)


@pytest.mark.parametrize("row", SCALING.own)
def test_scalings_change_positions_alone(row: str) -> None:
    options = {"none": {}, "yarn": {"factor": 4.0, "trained_len": 64}}.get(row, {"factor": 4.0})
    rope = Rope.from_base(32, 1e4)
    scaled = rescale(rope, make_settings("origin", scaling={"name": row, **options}))
    assert scaled.pairs == rope.pairs
    assert torch.equal(scaled.frequencies, rope.frequencies) == (row == "none")
    assert (scaled.frequencies <= rope.frequencies).all()


def test_rows_from_outside_are_listed_and_checked(outside: Any) -> None:
    names = ["window", "random", "newest", "plain", "half", "motto", "first", "head", "beside"]
    names += ["keys-alone", "empty", "arrow"]
    for registry, name in zip(KINDS.values(), names, strict=True):
        assert f"outside-{name}" in registry
        assert [*registry][: len(registry.own)] == list(registry.own)
    with pytest.raises(SettingsError, match=r"eviction\.seed = -1 is negative") as caught:
        make_settings(eviction={"name": "outside-random", "seed": -1})
    assert caught.value.key == "eviction"
    with pytest.raises(SettingsError, match="did you mean 'seed'"):
        make_settings(eviction={"name": "outside-random", "sed": 1})
    with pytest.raises(SettingsError, match="did you mean 'outside-random'"):
        make_settings(eviction="outside-randm")


def test_rows_from_outside_compute(outside: Any) -> None:
    qkv, feeds = random_qkv(110), [70, 25] + [1] * 15
    plain = replay(*qkv, feeds=feeds, kind="inf-llm", **MEMORY)
    evicted = replay(*qkv, feeds=feeds, kind="inf-llm", **MEMORY, eviction="outside-random")
    assert torch.equal(evicted.o, plain.o)
    newest = replay(*qkv, feeds=feeds, kind="inf-llm", **MEMORY, index="outside-newest")
    blocks = (110 - MEMORY["n_local"] - MEMORY["n_init"]) // MEMORY["block_size"]
    assert newest.topk is not None
    assert newest.topk[-1] == [[blocks - 3, blocks - 2, blocks - 1]]
    led = replay(*qkv, feeds=feeds, kind="inf-llm", **MEMORY, selection="outside-head")
    assert led.topk != plain.topk
    beside = replay(*qkv, feeds=feeds, kind="inf-llm", **MEMORY, far_positions="outside-beside")
    assert beside.topk[:5] == plain.topk[:5]  # type: ignore[index]
    assert (beside.o - plain.o).abs().max() > 0.05
    forgotten = replay(*qkv, feeds=feeds, kind="inf-llm", **MEMORY, codec="outside-keys-alone")
    assert forgotten.topk == plain.topk
    assert (forgotten.o - plain.o).abs().max() > 0.05
    rest = {key: value for key, value in MEMORY.items() if key != "repr_topk"}
    lost = replay(*qkv, feeds=feeds, kind="inf-llm", **MEMORY, tier="outside-empty")
    assert not torch.equal(lost.o, forgotten.o)
    first = replay(*qkv, feeds=feeds, kind="inf-llm", **rest, summary="outside-first")
    assert first.topk != plain.topk
    counted = replay(*qkv, feeds=feeds, kind="inf-llm", **MEMORY, kernel="outside-plain")
    torch.testing.assert_close(counted.o, plain.o, atol=2e-6, rtol=2e-6)
    assert outside.Plain.calls > 0
    half = rescale(Rope.from_base(16, 1e4), make_settings("origin", scaling="outside-half"))
    assert torch.equal(half.frequencies, Rope.from_base(16, 1e4).frequencies / 2)
    window = {"n_init": 4, "n_local": 24}
    mine = replay(*qkv, feeds=feeds, kind="outside-window", shorter=1, **window)
    theirs = replay(*qkv, feeds=feeds, kind="infinite-lm", **window)
    assert torch.equal(mine.o, theirs.o)


YAML = """\
model:
  type: {type}
  path: demo
  n_init: 16
  n_local: 256
  {more}
"""


def test_rows_from_outside_in_a_file(outside: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(YAML.format(type="inf-llm", more="eviction: {name: outside-random, seed: 3}"))
    settings = load_config(file, ["model.exc_block_size=256"]).attention
    assert settings.eviction == Choice("outside-random", {"seed": 3})  # type: ignore[attr-defined]
    assert to_plain(settings)["eviction"] == {"name": "outside-random", "seed": 3}
    with pytest.raises(ConfigError, match="'outside-rand' is not known; did you mean"):
        load_config(file, ["model.exc_block_size=256", "model.eviction=outside-rand"])
    file.write_text(YAML.format(type="outside-window", more="shorter: 2"))
    assert load_config(file).attention.shorter == 2  # type: ignore[attr-defined]
    model = inf_llm.patch(tiny_model(), config := load_config(file))
    assert isinstance(config.attention, outside.WindowedSettings)
    inf_llm.unpatch(model)


def test_rows_from_outside_on_the_command_line(tmp_path: Path) -> None:
    """In a process that knows only what is installed."""
    file = tmp_path / "mine.yaml"
    file.write_text(YAML.format(type="outside-window", more="shorter: 2"))
    paths = os.pathsep.join([str(OUTSIDE), os.environ.get("PYTHONPATH", "")])
    start = "from inf_llm.cli import main; main()"
    command = [sys.executable, "-c", start, "mask", "-c", str(file), "model.shorter=3"]
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "outside-window" in run.stdout


def test_a_row_added_by_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(FirstInFirstOut):
        pass

    monkeypatch.setattr(EVICTION, "_added", {})
    EVICTION.add("mine", Mine)
    layer = make_memory_layer(eviction="mine")
    feed(layer, random_qkv(90))
    assert layer.memory.store is not None
    assert type(layer.memory.store.slots.policy) is Mine
    with pytest.raises(SettingsError, match=r"eviction\.a = 1 .* it takes none"):
        make_settings(eviction={"name": "mine", "a": 1})


def test_a_row_may_not_take_a_name_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    row = registry_module._Row("somewhere:Else")
    monkeypatch.setattr(registry_module, "_installed", lambda key: {"lru": row})
    with pytest.raises(SettingsError, match="has the eviction policy 'lru' in the entry points"):
        EVICTION.get("lru")
    with pytest.raises(ConfigError, match=r"demo-inf-llm\.yaml: an installed distribution has"):
        load_config("demo")


def test_names_are_checked_without_torch() -> None:
    code = (
        "import sys; from inf_llm.settings import make_settings as m; "
        "m(cache_strategy='lru-s', score_decay=0.5, chunk_topk_calc=3, faiss_ivf_from=None); "
        "m('origin', scaling='yarn', scaling_factor=2, trained_len=64, kernel='triton'); "
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("settings", [{"eviction": "fifo"}, {"index": "torch"}], ids=str)
def test_a_model_takes_choices(settings: dict[str, Any]) -> None:
    model = inf_llm.patch(tiny_model(), type="inf-llm", **SETTINGS, **settings)
    member = inf_llm.new_cache(model).memories[0]._make()
    assert isinstance(member, InfLLMAttention)
    inf_llm.unpatch(model)
