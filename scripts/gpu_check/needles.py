"""Checks of the embedded model: all types in three dtypes, and decoding after a long text."""

from __future__ import annotations

import time

import torch

from gpu_check.check import KINDS, Check, DifferenceError, Figures, load
from inf_llm.demo import plan, run_trial
from inf_llm.generation import Session


def types(check: Check) -> Figures:
    """Find needles with all four types in three dtypes; float32 must match the CPU."""
    length, samples = (512, 1) if check.small else (4096, 5)
    figures: Figures = {}
    runs = [(dtype, check.device) for dtype in ("float32", "bfloat16", "float16")]
    for kind in KINDS:
        for dtype, device in [("float32", torch.device("cpu")), *runs]:
            model, tokenizer = load(kind, device, f"model.dtype={dtype}")
            hay = plan(tokenizer, "passkey", length, samples, 0)
            trial = run_trial(model, tokenizer, kind, hay, length, 2048)
            figures.setdefault(kind, []).append(
                {"dtype": dtype, "device": str(device), **trial.record()}
            )
        expected, here = (row["found"] for row in figures[kind][:2])
        if here != expected:
            raise DifferenceError(f"{kind} finds other needles than on the CPU", figures)
    if not all(figures["inf-llm"][1]["found"]):
        raise DifferenceError("inf-llm misses needles", figures)
    return figures


def decode_at_32k(check: Check) -> Figures:
    """Decode after a long text: with the reference kernel, as usual, and with a copy stream."""
    length, new = (2048, 8) if check.small else (32768, 64)
    ways = {"reference": ["model.kernel=reference"], "usual": []}
    ways["own stream"] = ["model.async_global_stream=true"]
    figures: Figures = {}
    for name, overrides in ways.items():
        model, tokenizer = load("inf-llm", check.device, "model.dtype=float32", *overrides)
        (sample,) = plan(tokenizer, "passkey", length, 1, 0)
        session = Session(model, tokenizer, 2048)
        before = time.perf_counter()
        session.read(sample.prompt)
        check.wait()
        reading = time.perf_counter() - before
        session.fork().ask(max_new_tokens=4)  # warm-up, which is not timed
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
