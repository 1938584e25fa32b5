"""scripts/gpu_check, run in small on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SHELL = ROOT / "scripts" / "gpu_check.sh"
sys.path.insert(0, str(ROOT / "scripts"))

from gpu_check import __main__ as gpu_check  # noqa: E402
from gpu_check import choices as of_choices  # noqa: E402
from gpu_check import kernels as of_kernels  # noqa: E402
from gpu_check.check import Check, DifferenceError  # noqa: E402

from inf_llm import variants  # noqa: E402


def run(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Its exit code, and the file that it leaves."""
    file = folder / "gpu.json"
    code = gpu_check.main(["--device", "cpu", "--json", str(file), *arguments])
    return code, json.loads(file.read_text())


def test_every_step_runs_and_leaves_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the choices of two kinds; those of the others have tests of their own."""
    some = {kind: of_choices.KINDS[kind] for kind in ("index", "tier")}
    monkeypatch.setattr(of_choices, "KINDS", some)
    code, facts = run(tmp_path)
    assert {name: step.get("error") for name, step in facts["steps"].items()} == dict.fromkeys(
        (
            *("kernels", "pinned_copies", "types", "choices", "saved", "together"),
            *("decode_at_32k", "speed"),
        )
    )
    assert code == 0
    assert facts["ok"]
    assert facts["environment"]["hardware"]
    kernels = facts["steps"]["kernels"]["figures"]
    assert "left_out" in kernels["triton, prompt, float32"]
    assert kernels["fused, decode, float32"]["ms"] > 0
    copies = facts["steps"]["pinned_copies"]["figures"]
    assert copies["pinned"]["evictions"] > 0
    rows = facts["steps"]["types"]["figures"]["inf-llm"]
    assert [row["dtype"] for row in rows] == ["float32", "float32", "bfloat16", "float16"]
    choices = facts["steps"]["choices"]["figures"]
    assert {name for name, found in choices.items() if "left_out" in found} == {"tier: pinned"}
    assert all(row["apart"] == 0 for row in choices.values() if "left_out" not in row)
    speed = facts["steps"]["speed"]["figures"]
    assert speed["rows"]
    assert list(speed["calls"]) == ["origin", "stream-lm", "inf-llm"]
    for calls in speed["calls"].values():  # a CPU launches nothing
        assert calls == {key: {"launches": 0, "waits": 0} for key in ("token", "chunk")}


def test_a_wrong_kernel_and_a_broken_step_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*args: Any) -> Any:
        o, lse = torch.ones(1, 4, args[0].shape[2], 16), torch.zeros(1, 4, args[0].shape[2])
        return o.to(args[0].dtype), lse

    def breaks(check: Any) -> Any:
        raise RuntimeError("device-side assert\nmany lines")

    right = of_kernels.attend
    monkeypatch.setattr(
        of_kernels,
        "attend",
        lambda q, k, v, how, band: (right if how.kernel == "reference" else wrong)(
            q, k, v, how, band
        ),
    )
    monkeypatch.setattr(gpu_check, "STEPS", (gpu_check.kernels, breaks))
    code, facts = run(tmp_path)
    assert code == 1
    assert not facts["ok"]
    steps = facts["steps"]
    assert steps["kernels"]["error"].startswith("differ from the reference: fused, prompt, float32")
    assert steps["kernels"]["figures"]
    assert steps["breaks"]["error"] == "RuntimeError: device-side assert"


def test_a_device_that_computes_otherwise_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    bare, made = of_choices._bare, []

    def perturbed(device: torch.device) -> Any:
        model, tokenizer = bare(device)
        made.append(model)
        if len(made) == 2:  # the device's
            with torch.no_grad():
                model.lm_head.weight.mul_(0.5)
        return model, tokenizer

    monkeypatch.setattr(of_choices, "_bare", perturbed)
    monkeypatch.setattr(of_choices, "KINDS", {"codec": variants.CODEC})
    with pytest.raises(DifferenceError, match="differ from the CPU: codec: raw, codec: int8"):
        of_choices.choices(Check(torch.device("cpu"), small=True))


def test_answers_that_differ_when_given_together_are_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = of_choices.feed_all

    def wrong(rows: Any) -> Any:
        logits = right(rows)
        return [each.flip(-1) for each in logits] if len(rows) > 1 else logits

    monkeypatch.setattr(of_choices, "feed_all", wrong)
    with pytest.raises(DifferenceError, match="differ when they are given together"):
        of_choices.together(Check(torch.device("cpu"), small=True))


def test_no_step_begins_once_the_time_is_over(tmp_path: Path) -> None:
    code, facts = run(tmp_path, "--seconds", "0")
    assert code == 1
    assert all(step["error"] == "left out: 0 s were over" for step in facts["steps"].values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_device_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu_check.main(["--json", str(tmp_path / "gpu.json")]) == 2
    told = capsys.readouterr().err.strip()
    assert "finds no CUDA device here" in told
    assert "\n" not in told
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return
    search = os.environ | {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", SHELL], env=search, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no CUDA device here")
    assert done.stderr.count("\n") == 1
