"""`inf-llm plan`, and the commands that refuse what does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from benchmark import process_memory
from inf_llm.config_file import shipped
from inf_llm.plan import refuse
from inf_llm.variants import CODEC
from tests.checkpoints import SETTINGS
from tests.cli.conftest import Invoke


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_table_of_every_type(invoke: Invoke, configs: dict[str, Path], kind: str) -> None:
    done = invoke("plan", "-c", configs[kind], "--tokens", "1m", "--host", "64GiB")
    assert done.exit_code == 0, done.stderr
    assert f"1M tokens, {kind}" in done.stdout
    assert "weights: " in done.stdout
    assert "memory: host 68.7 GB" in done.stdout
    assert "time: unknown: --calibrate" in done.stdout
    assert ("raw" in done.stdout) == (kind == "inf-llm")
    assert "does not fit" not in done.stdout


def test_json_has_a_plan_for_every_codec(invoke: Invoke, config: Path) -> None:
    words = ("plan", "-c", config, "-t", "1m", "--device", "1GiB", "--host", "1GiB", "--json")
    report = json.loads(invoke(*words).stdout)
    assert report["tokens"] == 1 << 20
    assert set(report["plans"]) >= set(CODEC.own)
    own = report["plans"]["raw"]
    near = own["window"] + own["recalled"] + own["index"]
    assert own["device"] == report["weights"] + near + report["working"]
    assert report["room"] == {"device": 1 << 30, "host": 1 << 30}
    assert report["seconds"] == "unknown: --calibrate"


def test_what_does_not_fit_is_said_with_what_would(invoke: Invoke, config: Path) -> None:
    done = invoke("plan", "-c", config, "--tokens", "100m", "--host", "1GiB")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert any(line.startswith("does not fit: ") and "has 1.1 GB" in line for line in lines)
    assert "each of these fits:" in lines
    assert lines[-2].startswith("max_len: ")


def test_a_measured_pace_is_kept(invoke: Invoke, config: Path) -> None:
    measured = invoke("plan", "-c", config, "-t", "4k", "--calibrate")
    assert measured.exit_code == 0, measured.stderr
    time = next(line for line in measured.stdout.splitlines() if line.startswith("time: "))
    assert "s to read" in time
    assert time in invoke("plan", "-c", config, "-t", "4k").stdout
    if not torch.cuda.is_available():
        elsewhere = invoke("plan", "-c", config, "-t", "4k", "--device", "1GiB")
        assert "unknown" in elsewhere.stdout
    other = invoke("plan", "-c", config, "-t", "4k", "model.topk=2")
    assert "unknown" in other.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--tokens", "many"], "is not a number of tokens"),
        (["--host", "much"], "is not a size"),
        (["--device", "1GiB", "--calibrate"], "--calibrate measures this machine"),
        (["model.topk=0"], "topk = 0"),
    ],
)
def test_refused(
    invoke: Invoke,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    says: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = invoke("plan", "-c", config, *words)
    assert done.exit_code == 2
    assert says in done.stderr


PEAK = """
import sys
from benchmark import process_memory
from inf_llm.cli import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(process_memory.peak(), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.skipif(process_memory.peak() is None, reason="this system says no peak of memory")
def test_no_weights_are_loaded(tmp_path: Path) -> None:
    """A model of 16 GB, whose file has a head and nothing behind it, is planned in under 1 GB."""
    model = _large_model(tmp_path / "large")
    words = ("plan", "-c", "default", "-m", model, "--tokens", "1m", "--json")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, words)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["weights"] > 16e9
    assert int(done.stderr.split()[-1]) < 1e9


def _large_model(folder: Path) -> Path:
    folder.mkdir()
    config = transformers.LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        dtype="bfloat16",
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        made = transformers.AutoModelForCausalLM.from_config(config)
    rows: dict[str, Any] = {}
    end = 0
    for name, weight in made.state_dict().items():
        begin, end = end, end + 2 * weight.numel()
        rows[name] = {"dtype": "BF16", "shape": list(weight.shape), "data_offsets": [begin, end]}
    head = json.dumps(rows).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + end)  # a hole: no bytes on the disk
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with hardly any memory left."""
    monkeypatch.setattr(refuse, "host_free", lambda: 1000)
    monkeypatch.setattr(refuse, "device_free", lambda: None)
    return monkeypatch


def test_weights_that_do_not_fit_are_not_loaded(
    invoke: Invoke, config: Path, book: Path, small: pytest.MonkeyPatch
) -> None:
    def load(*args: Any) -> Any:
        raise AssertionError("loaded")

    small.setattr("inf_llm.hf.load.load", load)
    for words in (["run", "-p", "Why?", "-f", book], ["chat"], ["serve"], ["ppl", "-f", book]):
        done = invoke(*words, "-c", config)
        assert done.exit_code == 2, words
        assert "are needed on the host, which has 1.0 KB" in done.stderr
        assert "--force goes on" in done.stderr
        forced = invoke(*words, "-c", config, "--force")
        assert "unexpected AssertionError: loaded" in forced.stderr


def test_a_text_that_does_not_fit_is_not_read(
    invoke: Invoke, config: Path, book: Path, small: pytest.MonkeyPatch
) -> None:
    weights = json.loads(invoke("plan", "-c", config, "--json").stdout)["weights"]
    small.setattr(refuse, "host_free", lambda: weights)
    book.write_text("Well, Prince. " * 10_000)
    words = ("run", "-c", config, "-f", book, "-p", "Why?", "-n", 2)
    done = invoke(*words)
    assert done.exit_code == 2
    assert "tokens do not fit: " in done.stderr
    assert "max_len=" in done.stderr
    book.write_text("Well, Prince. ")
    assert invoke(*words).exit_code == 0
    small.setattr(refuse, "host_free", lambda: 1000)
    assert invoke(*words, "--force").exit_code == 0


def test_every_configuration_with_a_model_that_comes_along_is_planned(invoke: Invoke) -> None:
    for name in shipped():
        if name.startswith("demo"):
            assert invoke("plan", "-c", name).exit_code == 0
