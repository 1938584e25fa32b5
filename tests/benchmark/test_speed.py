"""speed.py on the smallest preset: every figure is there, and measuring changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark import speed
from benchmark.timing import report
from benchmark.timing.presets import PRESETS, build_model
from benchmark.timing.ratios import ratios
from benchmark.timing.subjects import make_subject, settings_of
from benchmark.timing.walk import Plan
from inf_llm.config import SHIPPED_CONFIGS
from inf_llm.settings import InfLLMSettings, StreamLMSettings

DEMO = str(SHIPPED_CONFIGS / "demo-inf-llm.yaml")
DTYPE = "model.dtype=bfloat16"
TINY = ["--preset", "tiny", "--steps", "3", "--threads", "1"]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of the command, with a type whose cache gets filled and one that stops early."""
    folder = tmp_path_factory.mktemp("speed")
    threads = torch.get_num_threads()
    try:
        command = [*TINY, "--repeat", "2", "--json", str(folder / "speed.json")]
        assert speed.main([*command, "--plot", str(folder / "speed.png")]) == 0
    finally:
        torch.set_num_threads(threads)
    assert (folder / "speed.png").stat().st_size > 1000
    return json.loads((folder / "speed.json").read_text())


def test_rows(facts: dict[str, Any]) -> None:
    rows = {(row["type"], row["length"]): row for row in facts["rows"]}
    assert set(rows) == {
        *((kind, n) for kind in ("origin", "stream-lm", "inf-llm") for n in (128, 256)),
        ("inf-llm:reference", 128),
    }
    for (kind, length), row in rows.items():
        filled = (kind, length) == ("origin", 256)
        assert row["filled_with_random"] == filled
        assert (row["prefill_tok_s"] is None) == filled
        assert row["decode_steps"] == 6
        assert 0 < row["decode_ms_min"] <= row["decode_ms"] <= row["decode_ms_max"]


def test_bytes(facts: dict[str, Any]) -> None:
    """Counted by hand: 2 layers, 2 key heads of 16 float32."""
    rows = {(row["type"], row["length"]): row for row in facts["rows"]}
    token = 2 * 2 * 2 * 16 * 4
    assert rows["origin", 128]["device_kv_bytes"] == 128 * token
    assert rows["origin", 256]["device_kv_bytes"] == 256 * token
    sealed = (256 - 4 - 32) // 8 * 8  # what is neither sink nor in the window, in whole blocks
    assert rows["inf-llm", 256]["host_kv_bytes"] == sealed * token
    assert rows["inf-llm", 256]["blocks"] == 2 * sealed // 8
    same = {rows["inf-llm", n]["device_kv_bytes"] for n in (128, 256)}
    assert len(same) == 1


def test_provenance(facts: dict[str, Any]) -> None:
    environment = facts["environment"]
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["threads"] == 1
    assert environment["hardware"]
    assert "n_local=48" in facts["settings"]["stream-lm"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_compare_equals(name: str) -> None:
    """The window sees as many tokens as the memory shows; every chunk is whole blocks."""
    chosen = PRESETS[name]
    memory, window = settings_of("inf-llm", chosen), settings_of("stream-lm", chosen)
    assert isinstance(memory, InfLLMSettings)
    assert isinstance(window, StreamLMSettings)
    assert window.n_local == memory.n_local + memory.topk * memory.block_size
    assert window.n_init == memory.n_init
    assert chosen.chunk % memory.exc_block_size == 0


def test_the_cpu_preset_is_the_model_it_says() -> None:
    with torch.device("meta"):
        model = build_model(PRESETS["cpu"], 0)
    assert 22e6 < sum(p.numel() for p in model.parameters()) < 28e6


@pytest.mark.parametrize("name", ["origin", "stream-lm", "inf-llm"])
def test_a_branch_leaves_the_cache_as_it_was(name: str) -> None:
    chosen = PRESETS["tiny"]
    subject = make_subject(name, build_model(chosen, 0), chosen)
    text = torch.arange(101)[None] % 256
    answers = []
    with torch.no_grad():
        for decode in (False, True):
            subject.begin()
            subject.feed(text[:, :100])
            if decode:
                branch = subject.branch()
                for token in range(20):
                    subject.feed(text[:, token : token + 1], branch)
            found = subject.model(text[:, 100:], past_key_values=subject.cache)
            answers.append(found.logits)
    assert torch.equal(*answers)


def test_twins_share_their_weights() -> None:
    model = build_model(PRESETS["tiny"], 0)
    twin = make_subject("inf-llm", model, PRESETS["tiny"]).model
    mine, theirs = model.state_dict(), twin.state_dict()
    assert all(theirs[name].data_ptr() == mine[name].data_ptr() for name in mine)
    assert model.config._attn_implementation == "sdpa"


def test_ratios_against_what_is_wanted() -> None:
    def row(kind: str, length: int, prefill: float, decode: float) -> report.Row:
        return {
            "type": kind,
            "length": length << 10,
            "device_kv_bytes": 7 if kind == "inf-llm" else length,
            **report._spread("prefill_tok_s", [prefill], 1),
            **report._spread("prefill_tail_us_tok", [1 / prefill], 1),
            **report._spread("decode_ms", [decode], 1),
        }

    rows = [
        row("origin", 128, 10, 50),
        row("inf-llm", 32, 100, 10),
        row("inf-llm", 128, 100, 10),
        row("inf-llm", 512, 50, 13),
        row("stream-lm", 128, 110, 8),
    ]
    found = {ratio.text: ratio for ratio in ratios(rows, "cpu")}
    want = {
        "decode at 128k, time of origin over inf-llm": (5, True),
        "decode of inf-llm, time at 512k over 32k": (1.3, False),
        "prefill of inf-llm, time per token in the last tenth of 512k over that of 32k": (2, False),
        "prefill of 128k, time of inf-llm over stream-lm": (1.1, True),
        "decode at 128k, time of inf-llm over stream-lm": (1.25, True),
        "device bytes of inf-llm, most over least from 32k to 512k": (1, True),
    }
    assert {text: (ratio.value, ratio.met) for text, ratio in found.items()} == {
        text: (pytest.approx(value), met) for text, (value, met) in want.items()
    }
    assert ratios(rows, "none") == []


def test_every_length_ends_a_chunk() -> None:
    assert list(Plan((100, 130), 64).chunks()) == [(0, 64), (64, 100), (100, 130)]


def test_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "trace.json"
    assert speed.main([*TINY, "--types", "inf-llm", "--profile", str(target)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "trace-inf-llm-prefill.json",
        "trace-inf-llm-decode.json",
    }
    assert "inf-llm, decode" in capsys.readouterr().out


WRONG = {
    "preset": (["--preset", "gpu"], "'gpu' is not known; "),
    "length": (["--lengths", "32k,many"], "'many' is not a number of tokens"),
    "type": (["--types", "infllm"], "'infllm' is not measured here; did you mean 'inf-llm'?"),
    "kernel": (["--types", "inf-llm:tritn"], "names no kernel; did you mean 'triton'?"),
    "kernel of origin": (["--types", "origin:triton"], "takes no kernel"),
    "steps": (["--steps", "0"], "--steps 0 is out of range"),
    "folder": (["--json", "nowhere/at/all.json"], "cannot be written (No such file"),
    "setting of a preset": (["model.topk=3"], "belong to a configuration: give --config too"),
    "two models": (["--config", DEMO], "--config and --preset each name a model"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speed.main([*TINY, *arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told


def test_the_model_of_a_configuration(tmp_path: Path) -> None:
    """Its own settings and the overrides are what is timed."""
    file = tmp_path / "speed.json"
    command = ["--config", DEMO, "--lengths", "400,600", "--steps", "2", "--json", str(file)]
    assert speed.main([*command, "--types", "origin,inf-llm", "model.topk=8", DTYPE]) == 0
    facts = json.loads(file.read_text())
    assert facts["preset"] is None
    assert facts["config"]["model"]["path"] == "demo"
    assert "topk=8" in facts["settings"]["inf-llm"]
    blocks = {row["length"]: row.get("blocks") for row in facts["rows"] if row["type"] == "inf-llm"}
    assert blocks == {400: 5 * (400 - 16 - 256) // 2, 600: 5 * (600 - 16 - 256) // 2}
    held = [row["device_kv_bytes"] for row in facts["rows"] if row["type"] == "origin"]
    assert held == [5 * 2 * 2 * 64 * 2 * n for n in (400, 600)]


def test_a_configuration_without_a_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--config", str(SHIPPED_CONFIGS / "demo-origin.yaml")]) == 2
    assert "has type 'origin': a configuration of type 'inf-llm'" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_preset_whose_device_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--preset", "h200"]) == 2
    assert "needs a CUDA device and there is none: use cpu" in capsys.readouterr().err
