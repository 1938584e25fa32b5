"""A preset of benchmark/speed.py, and the calls of the host to the driver."""

from __future__ import annotations

import dataclasses
import sys

import torch
from torch.profiler import profile, supported_activities

from benchmark.timing import report
from benchmark.timing.presets import PRESETS, Preset, build_model
from benchmark.timing.ratios import ratios
from benchmark.timing.subjects import Subject, make_subject
from benchmark.timing.walk import Plan, walk
from gpu_check.check import Check, Figures

BYTES_FOR_8B = 40 << 30


def speed(check: Check) -> Figures:
    """Run preset `h200` of benchmark/speed.py at two lengths, with fewer layers on a small GPU."""
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
    """Count kernel launches and waits after a long text, per decoded token and per chunk."""
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
