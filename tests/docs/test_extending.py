"""docs/extending.md adds a row of every kind that there is, and each does what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import inf_llm
from benchmark.tasks import owner
from inf_llm import kernels, variants
from inf_llm import registry as registry_module
from inf_llm.config import SHIPPED_CONFIGS, load_config
from inf_llm.demo import plan
from inf_llm.errors import ConfigError, SettingsError
from inf_llm.generation import Session
from inf_llm.generation.calls import Call, CallReader, Tool, form_of
from inf_llm.generation.grammar import Grammars
from inf_llm.hf.patch import patched
from inf_llm.memory.index import TorchIndex
from inf_llm.memory.stats import MemoryStats
from inf_llm.needles import family
from inf_llm.published import published_keys
from inf_llm.registry import Registry
from inf_llm.rope import Rope
from inf_llm.testing import replay
from inf_llm.variants import ATTENTION, EVICTION, FAR_POSITIONS, INDEX, SELECTION, SUMMARY, TIER
from tests.docs.pages import ROOT, blocks
from tests.layers import MEMORY, random_qkv
from tests.tiny import tiny_tokenizer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

PAGE = blocks(ROOT / "docs" / "extending.md")
FILES = {block.name: block.code for block in PAGE if block.name}
PROJECT = tomllib.loads(FILES["pyproject.toml"])
ENTRIES = PROJECT["project"]["entry-points"]["inf_llm.variants"]
LINES = [block.code for block in PAGE if block.language == "yaml" and not block.name]
TEXT = "The grass is green. The sky is blue. " * 60


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files of the page, whose modules can be imported."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if f"{name}.py" in FILES]:
        del sys.modules[name]


@pytest.fixture
def installed(written: Path) -> Iterator[Path]:
    """The same, with its entry points, as if the distribution were installed."""
    info = written / "my_variants-1.0.dist-info"
    info.mkdir()
    rows = "".join(f"{name} = {target}\n" for name, target in ENTRIES.items())
    (info / "entry_points.txt").write_text(f"[inf_llm.variants]\n{rows}", encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-variants\nVersion: 1.0\n")
    _forget_rows()
    yield written
    _forget_rows()


def _forget_rows() -> None:
    registry_module._installed.cache_clear()
    kernels._load.cache_clear()


@pytest.fixture
def loaded(installed: Path) -> Callable[[str], Any]:
    """Loads the embedded model with a line of the page in its configuration, or without any."""

    def load(key: str) -> Any:
        content = yaml.safe_load((SHIPPED_CONFIGS / "demo-inf-llm.yaml").read_text())
        line = yaml.safe_load(next((x for x in LINES if x.startswith(key)), "{}"))
        for old in published_keys(line):
            content["model"].pop(old, None)
        content["model"] |= line
        file = installed / f"{key}.yaml"
        file.write_text(yaml.safe_dump(content))
        return inf_llm.load(file, ["model.dtype=float32"])

    return load


def read(model: Any, tokenizer: Any) -> tuple[MemoryStats, str]:
    """What a text takes in memory, and how the model goes on."""
    session = Session(model, tokenizer)
    session.read(TEXT)
    stats = session.stats()
    return stats, session.ask(max_new_tokens=6).text


def spied(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """What calls of a method, or of a function of a module, get as their first argument."""
    seen: list[Any] = []
    method = getattr(owner, name)

    def spy(*args: Any) -> Any:
        seen.append(args[0])
        return method(*args)

    monkeypatch.setattr(owner, name, spy)
    return seen


def test_every_kind_is_shown_in_few_lines() -> None:
    tables = [table for table in vars(variants).values() if isinstance(table, Registry)]
    assert {t._key for t in tables if t._key} <= {name.split(".")[0] for name in ENTRIES}
    modules = {target.split(":")[0] for target in ENTRIES.values()}
    assert {f"{module}.py" for module in modules} <= set(FILES)
    assert set(PROJECT["tool"]["setuptools"]["py-modules"]) == modules, "else pip installs none"
    assert all(len(code.splitlines()) <= 40 for code in FILES.values())


def test_an_eviction_policy(loaded: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("eviction")
    kind = EVICTION.get("lfu")
    calls = spied(monkeypatch, kind, "loaded")
    read(*model)
    assert {policy.fades for policy in calls} == {0.5}
    assert calls[0].used(calls[0].loaded(7.0), 9.0) == 2
    with pytest.raises(ConfigError, match=r"eviction\.fade = 2\.0 is out of range"):
        load_config(
            SHIPPED_CONFIGS / "demo-inf-llm.yaml", ["model.eviction={name: lfu, fade: 2.0}"]
        )


def test_an_index(loaded: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of small keys in the query's direction is found before a block of large ones."""
    model = loaded("index")
    kind = INDEX.get("cosine")
    calls = spied(monkeypatch, kind, "put")
    read(*model)
    assert {type(index) for index in calls} == {kind}
    vectors = torch.tensor([[[5.0, 5.0], [1.0, 0.1]]])
    query = torch.tensor([[[1.0, 0.0]]])
    for each, best in ((TorchIndex, 0), (kind, 1)):
        made = each(chunk=4096)
        made.put(torch.arange(2), vectors)
        assert made.search(query, 1, 2, None)[0].item() == best


def test_a_summary(loaded: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One key unlike the others is the summary of its block."""
    model = loaded("summary")
    calls = spied(monkeypatch, SUMMARY.get("unusual"), "vectors")
    read(*model)
    assert {summary.tokens for summary in calls} == {1}
    k = torch.ones(1, 2, 3, 4, 8)
    k[:, :, 1, 2] = -5.0
    found = calls[0].vectors(k, torch.zeros(1, 4, 3, 4))
    assert torch.equal(found[:, :, 1], torch.full((1, 2, 1, 8), -5.0))
    assert torch.equal(found[:, :, ::2], torch.ones(1, 2, 2, 1, 8))


def test_a_selection(loaded: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One head that gives a block all of its attention goes before three that give it a little."""
    model = loaded("selection")
    kind = SELECTION.get("strongest-head")
    calls = spied(monkeypatch, kind, "mass")
    read(*model)
    assert {selection.scores for selection in calls} == {"softmax"}
    mass = torch.tensor([[[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.2, 0.8]]])
    assert kind(4, 2, 4).mass(mass).argmax(-1).tolist() == [[0]]
    assert SELECTION.get("layer")(4, 2, 4).mass(mass).argmax(-1).tolist() == [[1]]


def test_a_position_rule(loaded: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One block at a time is contiguous; two are not, since they stand at one place."""
    model = loaded("far_positions")
    calls = spied(monkeypatch, FAR_POSITIONS.get("overlaid"), "place")
    assert read(*model)[1]
    assert calls
    qkv, feeds = random_qkv(110), [70, 25] + [1] * 15
    for topk, same in ((1, True), (2, False)):
        rules = (
            replay(*qkv, feeds=feeds, kind="inf-llm", **MEMORY | {"topk": topk}, far_positions=row)
            for row in ("overlaid", "contiguous")
        )
        ours, other = (each.o for each in rules)
        assert torch.allclose(ours, other, atol=2e-6, rtol=2e-6) == same


def test_a_codec(loaded: Callable[[str], Any]) -> None:
    pytest.importorskip("inf_llm.memory.codec")
    half, _ = read(*loaded("codec"))
    plain, _ = read(*loaded("nothing"))
    assert half.host_bytes == plain.host_bytes / 2
    assert half.blocks == plain.blocks


def test_a_tier(loaded: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("tier")
    calls = spied(monkeypatch, TIER.get("compressed"), "read")
    _, text = read(*model)
    assert calls
    assert text == read(*loaded("nothing"))[1]


def test_a_kernel(loaded: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("kernel")
    calls = spied(monkeypatch, sys.modules["my_kernel"], "attend")
    _, text = read(*model)
    assert calls
    assert read(*loaded("nothing"))[1] == text
    qkv, feeds = random_qkv(110), [70, 25] + [1] * 15
    ours = replay(*qkv, feeds=feeds, kind="inf-llm", **MEMORY, kernel="float64")
    plain = replay(*qkv, feeds=feeds, kind="inf-llm", **MEMORY, kernel="reference")
    torch.testing.assert_close(ours.o, plain.o, atol=2e-6, rtol=2e-6)


def test_a_scaling(loaded: Callable[[str], Any]) -> None:
    model, _ = loaded("scaling")
    frequencies = Rope.from_base(64, 1e4).frequencies
    slow = frequencies * 512 / (2 * torch.pi) < 1
    assert 0 < slow.sum() < len(frequencies)
    rope = inf_llm.new_cache(model).memories[0]._make().rope
    torch.testing.assert_close(rope.frequencies[slow], frequencies[slow] / 4, rtol=1e-5, atol=0)
    torch.testing.assert_close(rope.frequencies[~slow], frequencies[~slow], rtol=1e-5, atol=0)


def test_an_attention_type(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = inf_llm.load(installed / "near-sinks.yaml")
    state = patched(model)
    assert state is not None
    assert state.settings.type == "near-sinks"
    calls = spied(monkeypatch, ATTENTION.get("near-sinks"), "_sink_query")
    assert read(model, tokenizer)[1]
    assert {layer._distance for layer in calls} == {100}
    with pytest.raises(ConfigError, match=r"sink_distance = 448 is not within"):
        load_config(installed / "near-sinks.yaml", ["model.sink_distance=448"])


def test_a_needle_family(installed: Path) -> None:
    """Its samples are read by the demo and by the benchmark, and unknown names are refused."""
    hay = plan(lambda text: len(text.split()), "door", 300, 3, seed=0)
    assert [sample.family for sample in hay] == ["door"] * 3
    assert all(280 <= sample.length <= 300 for sample in hay)
    assert all(f"The door of the inn is {sample.answers[0]}." in sample.context for sample in hay)
    assert len({sample.context.index("The door") // 400 for sample in hay}) == 3
    assert hay[0].found(f" {hay[0].answers[0]}, like all doors")
    assert owner("door@1k").name == "needles"
    with pytest.raises(SettingsError, match="did you mean 'door'"):
        family("dor")


def test_a_form_of_calls(installed: Path) -> None:
    pytest.importorskip("llguidance", reason="needs the extra 'structured'")
    form = form_of("... => NAME ...")
    assert type(form).__name__ == "Arrows"
    tools = (Tool("add", "", {"type": "object"}), Tool("stop", "", {"type": "object"}))
    text = 'Well.\n=> add {"a": 1}\n=> stop {}'
    reader = CallReader(form, [tool.name for tool in tools])
    assert reader.put(text) == "Well."
    assert reader.end()[1] == [Call("add", '{"a": 1}'), Call("stop", "{}")]
    tokenizer = tiny_tokenizer()
    grammars = Grammars(tokenizer, len(tokenizer), None)
    rules = form.rules(tools, True, grammars.lark_piece)
    ids = torch.tensor([tokenizer.encode("=> stop {}")])
    assert (
        grammars.of_lark(f"start: calls\n{rules}").constraint(0, 99)(ids, torch.zeros(1, 300)).max()
        == 0
    )


def test_a_row_of_this_program(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EVICTION, "_added", {})
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(compile(FILES["program.py"], "program.py", "exec"), names)
    calls = spied(monkeypatch, sys.modules["my_eviction"].LeastFrequentlyUsed, "loaded")
    read(names["model"], names["tokenizer"])
    assert calls


def test_the_command_line_finds_them(installed: Path) -> None:
    paths = os.pathsep.join([str(installed), str(ROOT)])
    start = "from inf_llm.cli import main; main()"
    command = [sys.executable, "-c", start, "run", "-c", "config/demo-inf-llm.yaml"]
    command += ["-p", "The sky is", "-n", "2", "model.eviction={name: lfu, fade: 0.5}"]
    run = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        input=TEXT,
    )
    assert run.returncode == 0, run.stderr
    assert "read" in run.stderr
