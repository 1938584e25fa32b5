"""What a figure was measured on, as tables and loading lines say it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmark.report import markdown
from benchmark.scores import RunScores
from benchmark.timing.report import table
from inf_llm import processor as module
from inf_llm.processor import machine, processor

CPUINFO = {
    "amx": (
        "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) 8481C\nflags\t\t: fpu avx2 avx512f "
        "avx512_bf16 amx_bf16 amx_tile\n\nprocessor\t: 1\nmodel name\t: another\nflags\t\t: sse\n",
        "Intel(R) Xeon(R) 8481C (AVX2, AVX-512, AVX-512 BF16, AMX), ",
    ),
    "plain": ("model name\t: Old CPU\nflags\t\t: fpu sse sse2 avx\n", "Old CPU, "),
    "arm": ("processor\t: 0\nFeatures\t: fp asimd bf16 sve\n", " (NEON, SVE, BF16), "),
}


@pytest.fixture(autouse=True)
def _asked_anew() -> None:
    processor.cache_clear()


@pytest.mark.parametrize("name", CPUINFO)
def test_name_and_instruction_sets(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, told = CPUINFO[name]
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "cpuinfo")
    assert told in processor()
    assert processor().endswith(" cores")


def test_where_the_system_has_no_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "none")
    monkeypatch.setattr(
        module.subprocess,
        "run",
        lambda command, **options: subprocess.CompletedProcess(command, 0, "Apple M9\n"),
    )
    assert processor().startswith("Apple M9")


def test_every_table_names_it() -> None:
    row = {"type": "origin", "length": 128, "filled_with_random": False}
    row |= dict.fromkeys(("prefill_tok_s", "prefill_tail_us_tok", "decode_ms"))
    row |= {"device_kv_bytes": 1, "host_kv_bytes": 1}
    assert machine("cpu") == processor()
    assert processor() in table([row], machine("cpu"))
    scored = markdown(RunScores(Path("run"), {}, []), {"machine": processor()})
    assert f"Predicted on {processor()}." in scored
