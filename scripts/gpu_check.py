"""What a CPU cannot show, on the first CUDA device, in a few minutes: one JSON file.

    bash scripts/gpu_check.sh [--json FILE] [--seconds N]

Every step compares what the device computes with the same on the CPU or with the reference, and
times it. A step that fails is recorded and the next one begins; one for which no time is left is
recorded as left out. `--device cpu` runs the same on a CPU, in small, to try the script itself.

Exit codes: 0 all steps passed, 1 some did not, 2 there is no CUDA device.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.profiler import profile, supported_activities  # noqa: E402

import inf_llm  # noqa: E402
from benchmark.timing import report  # noqa: E402
from benchmark.timing.presets import PRESETS, Preset, build_model  # noqa: E402
from benchmark.timing.ratios import ratios  # noqa: E402
from benchmark.timing.subjects import Subject, make_subject  # noqa: E402
from benchmark.timing.walk import Plan, walk  # noqa: E402
from inf_llm.attention.base import Rule  # noqa: E402
from inf_llm.attention.inf_llm import InfLLMAttention  # noqa: E402
from inf_llm.config import SHIPPED_CONFIGS  # noqa: E402
from inf_llm.demo import plan, run_trial  # noqa: E402
from inf_llm.generation import Session  # noqa: E402
from inf_llm.kernels import Band, Scoring, attend, received  # noqa: E402
from inf_llm.rope import Rope  # noqa: E402
from inf_llm.settings import InfLLMSettings  # noqa: E402

KINDS = ("origin", "infinite-lm", "stream-lm", "inf-llm")
KERNELS = ("fused", "triton", "varlen", "flash-attn")
TOLERANCE = {torch.float32: 2e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
BYTES_FOR_8B = 40 << 30
Figures = dict[str, Any]


class DifferenceError(Exception):
    """Two ways to compute the same differ; `figures` are what was measured until then."""

    def __init__(self, message: str, figures: Figures) -> None:
        super().__init__(message)
        self.figures = figures


@dataclasses.dataclass(frozen=True)
class Check:
    """Where to compute, and whether in small.

    Attributes:
        device: `cuda:0`, or `cpu`.
        small: sizes for trying this script on a CPU.
    """

    device: torch.device
    small: bool

    def timed(self, work: Callable[[], Any], times: int = 5) -> tuple[Any, float]:
        """What it gives, and the shortest of its times in milliseconds, the first left out."""
        best, result = float("inf"), work()
        for _ in range(times):
            self.wait()
            before = time.perf_counter()
            result = work()
            self.wait()
            best = min(best, 1e3 * (time.perf_counter() - before))
        return result, round(best, 4)

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def kernels(check: Check) -> Figures:
    """Every kernel against the reference in float32: a prompt's block, and one decoded token."""
    width, heads, groups = (16, 4, 2) if check.small else (128, 32, 8)
    shapes = {"prompt": (64, 256), "decode": (1, 384)} if check.small else None
    shapes = shapes or {"prompt": (512, 4608), "decode": (1, 6144)}
    figures: Figures = {}
    for dtype in TOLERANCE:
        for name, (queries, keys) in shapes.items():
            generator = torch.Generator().manual_seed(0)
            sizes = ((heads, queries), (groups, keys), (groups, keys))
            q, k, v = (
                torch.randn(1, h, n, width, generator=generator).to(check.device, dtype)
                for h, n in sizes
            )
            band = Band(keys - queries, 0, keys - queries) if queries > 1 else None
            for kernel in KERNELS:
                row = f"{kernel}, {name}, {str(dtype).removeprefix('torch.')}"
                figures[row] = _kernel(check, kernel, (q, k, v), band)
    wrong = [row for row, found in figures.items() if found.get("wrong")]
    if wrong:
        raise DifferenceError(f"differ from the reference: {'; '.join(wrong)}", figures)
    return figures


def _kernel(
    check: Check, kernel: str, qkv: tuple[Tensor, Tensor, Tensor], band: Band | None
) -> Figures:
    q, k, v = qkv
    scale, limit = q.shape[-1] ** -0.5, TOLERANCE[q.dtype]
    plain, asked = Scoring(scale, kernel="reference"), Scoring(scale, kernel=kernel)
    try:
        (o, lse), milliseconds = check.timed(lambda: attend(q, k, v, asked, band))
        mass = received(q, k, lse, asked, band)
    except inf_llm.InfLLMError as error:  # it is not for this device or dtype, or not installed
        return {"left_out": str(error)}
    wide = q.float(), k.float(), v.float()
    want, want_lse = attend(*wide, plain, band)
    want_mass = received(*wide[:2], want_lse, plain, band)
    apart = {
        "output": float((o.float() - want).abs().max()),
        "log_sum_exp": float((lse - want_lse).abs().max()),
        "received": float((mass - want_mass).abs().max() / want_mass.abs().max()),
    }
    return {**apart, "ms": milliseconds, "wrong": not all(x <= limit for x in apart.values())}


def pinned_copies(check: Check) -> Figures:
    """One layer far past its slots: pinned or not, on a stream of its own or not, all the same."""
    width, tokens = (16, 400) if check.small else (128, 8192)
    sizes = {"n_init": 16, "n_local": 64, "block_size": 16, "topk": 4, "max_cached_block": 6}
    if not check.small:
        sizes = {"n_init": 128, "n_local": 1024, "block_size": 64, "topk": 8}
        sizes |= {"max_cached_block": 12}
    block = 4 * sizes["block_size"]
    generator = torch.Generator().manual_seed(0)
    text = [torch.randn(1, heads, tokens, width, generator=generator) for heads in (8, 2, 2)]
    ways: dict[str, tuple[torch.device, Figures]] = {
        "on the CPU": (torch.device("cpu"), {}),
        "pinned": (check.device, {}),
        "pinned, own stream": (check.device, {"async_global_stream": True}),
        "not pinned": (check.device, {"pin_memory": False}),
    }
    figures: Figures = {}
    outputs: dict[str, Tensor] = {}
    for name, (device, more) in ways.items():
        settings = InfLLMSettings(**sizes, exc_block_size=block, **more)
        layer = InfLLMAttention(Rope.from_base(width, 10000.0), settings, slots=True)
        placed = [x.to(device) for x in text]
        check.wait()
        before, parts = time.perf_counter(), []
        for q, k, v in zip(*(x.split(block, 2) for x in placed), strict=True):
            parts.append(layer.attend(q, k, v, Rule(Scoring(width**-0.5))))
        outputs[name] = torch.cat(parts, 2).cpu()
        seconds, stats = time.perf_counter() - before, layer.stats()
        figures[name] = {"seconds": seconds, "loads": stats.loads, "evictions": stats.evictions}
        figures[name]["apart"] = float((outputs[name] - outputs["on the CPU"]).abs().max())
    same = all(torch.equal(outputs["pinned"], outputs[name]) for name in list(ways)[1:])
    if not same or figures["pinned"]["apart"] > 1e-3 or not figures["pinned"]["evictions"]:
        raise DifferenceError("the ways to bring blocks to the device do not agree", figures)
    return figures


def _load(kind: str, device: torch.device, *overrides: str) -> tuple[Any, Any]:
    """The embedded model with a type, on a device."""
    name = {"stream-lm": "stream-llm"}.get(kind, kind)
    place = [f"model.device_map={device}", *overrides]
    return inf_llm.load(SHIPPED_CONFIGS / f"demo-{name}.yaml", place)


def types(check: Check) -> Figures:
    """Needles with all four types, in three number formats, against the CPU in float32."""
    length, samples = (512, 1) if check.small else (4096, 5)
    figures: Figures = {}
    runs = [(dtype, check.device) for dtype in ("float32", "bfloat16", "float16")]
    for kind in KINDS:
        for dtype, device in [("float32", torch.device("cpu")), *runs]:
            model, tokenizer = _load(kind, device, f"model.dtype={dtype}")
            hay = plan(tokenizer, "passkey", length, samples, 0)
            trial = run_trial(model, tokenizer, kind, hay, length, 2048)
            figures.setdefault(kind, []).append(
                {"dtype": dtype, "device": str(device), **trial.record()}
            )
        wanted, here = (row["found"] for row in figures[kind][:2])
        if here != wanted:
            raise DifferenceError(f"{kind} finds other needles than on the CPU", figures)
    if not all(figures["inf-llm"][1]["found"]):
        raise DifferenceError("inf-llm misses needles", figures)
    return figures


def decode_at_32k(check: Check) -> Figures:
    """Tokens decoded behind a long text: by the reference, as usual, and with copies beside."""
    length, new = (2048, 8) if check.small else (32768, 64)
    ways = {"reference": ["model.kernel=reference"], "usual": []}
    ways["own stream"] = ["model.async_global_stream=true"]
    figures: Figures = {}
    for name, overrides in ways.items():
        model, tokenizer = _load("inf-llm", check.device, "model.dtype=float32", *overrides)
        (sample,) = plan(tokenizer, "passkey", length, 1, 0)
        session = Session(model, tokenizer, 2048)
        before = time.perf_counter()
        session.read(sample.prompt)
        check.wait()
        reading = time.perf_counter() - before
        session.fork().ask(max_new_tokens=4)  # makes what is made once
        answer = session.ask(max_new_tokens=new, eos_token_id=None)
        figures[name] = {
            "read_seconds": reading,
            "ms_per_token": 1e3 * answer.seconds / new,
            "answer": answer.text,
            "tokens": list(answer.token_ids),
        }
    if len({str(found["tokens"]) for found in figures.values()}) > 1:
        raise DifferenceError("the ways to decode say different things", figures)
    return figures


def speed(check: Check) -> Figures:
    """The preset `h200` of benchmark/speed.py at two lengths, with fewer layers on a small GPU."""
    chosen, lengths = PRESETS["tiny"], (128, 256)
    if not check.small:
        chosen, lengths = PRESETS["h200"], (4096, 32768)
        if torch.cuda.mem_get_info(check.device)[1] < BYTES_FOR_8B:
            chosen = dataclasses.replace(chosen, model={**chosen.model, "num_hidden_layers": 4})
    chosen = dataclasses.replace(chosen, lengths=lengths)
    model = build_model(chosen, 0)
    subjects = [make_subject(name, model, chosen) for name in ("origin", "stream-lm", "inf-llm")]
    plan = Plan(chosen.lengths, chosen.chunk, steps=16)
    rows = report.rows(walk(subjects, plan, lambda text: None))
    found = [{**dataclasses.asdict(each), "met": each.met} for each in ratios(rows, chosen.target)]
    calls = {subject.name: _calls(check, subject, chosen) for subject in subjects}
    layers = chosen.model["num_hidden_layers"]
    return {"layers": layers, "rows": rows, "ratios": found, "calls": calls}


def _calls(check: Check, subject: Subject, chosen: Preset) -> Figures:
    """What the host asks of the driver behind a long text, per decoded token and per chunk."""
    length, chunk = max(chosen.lengths), chosen.chunk
    text = torch.randint(chosen.model["vocab_size"], (1, chunk)).to(check.device)
    subject.begin()
    for _ in range(0, length, chunk):
        subject.feed(text)
    subject.feed(text[:, :1])
    figures = {}
    for name, tokens, times in (("token", 1, 4), ("chunk", chunk, 1)):
        with profile(activities=list(supported_activities())) as profiler:
            for _ in range(times):
                subject.feed(text[:, :tokens])
            check.wait()
        counts = {row.key: row.count / times for row in profiler.key_averages()}
        launches = sum(count for key, count in counts.items() if "LaunchKernel" in key)
        waits = counts.get("cudaStreamSynchronize", 0)
        figures[name] = {"launches": launches, "waits": waits}
        line = f"{subject.name}: {launches:.0f} launches and {waits:.0f} waits per {name}"
        print(line, file=sys.stderr, flush=True)
    subject.begin()
    return figures


STEPS = (kernels, pinned_copies, types, decode_at_32k, speed)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="gpu_check.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"), metavar="FILE")
    parser.add_argument("--seconds", type=float, default=400, help="after which no step begins")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"error: torch {torch.__version__} finds no CUDA device here", file=sys.stderr)
        return 2
    device = torch.device("cuda:0" if args.device == "cuda" else "cpu")
    return _run(Check(device, small=args.device == "cpu"), args.json, args.seconds)


def _run(check: Check, file: Path, seconds: float) -> int:
    started, steps = time.perf_counter(), {}
    facts = {"environment": report.environment(check.device.type), "steps": steps}
    for step in STEPS:
        before = time.perf_counter()
        if before - started < seconds:
            steps[step.__name__] = _outcome(step, check)
        else:
            steps[step.__name__] = {"ok": False, "error": f"left out: {seconds:.0f} s were over"}
        took = time.perf_counter() - before
        steps[step.__name__]["seconds"] = round(took, 2)
        facts["ok"] = all(found["ok"] for found in steps.values())
        file.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        verdict = "ok" if steps[step.__name__]["ok"] else steps[step.__name__]["error"]
        print(f"{step.__name__}: {verdict} ({took:.1f} s)", file=sys.stderr, flush=True)
    print(file)
    return 0 if facts["ok"] else 1


def _outcome(step: Callable[[Check], Figures], check: Check) -> Figures:
    """The figures of a step, or what it failed with."""
    try:
        with torch.no_grad():
            return {"ok": True, "figures": step(check)}
    except DifferenceError as error:
        return {"ok": False, "error": str(error), "figures": error.figures}
    except Exception as error:  # whatever a GPU's libraries raise belongs into the file
        line = f"{type(error).__name__}: {str(error).strip() or 'no reason given'}"
        return {"ok": False, "error": line.splitlines()[0], "traceback": traceback.format_exc()}


if __name__ == "__main__":
    sys.exit(main())
