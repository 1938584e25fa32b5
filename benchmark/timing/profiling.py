"""Profiler traces of one prefill chunk and a few decoded tokens of each attention type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmark.timing.subjects import Subject
from inf_llm.errors import InfLLMError

_STEPS = 8


@torch.no_grad()
def trace(subjects: Sequence[Subject], length: int, chunk: int, path: Path) -> str:
    """Write Chrome traces of prefill and decoding after a context of `length` tokens.

    Returns:
        Tables of the most expensive operations, one for each type and phase.

    Raises:
        InfLLMError: a file cannot be written.
    """
    cuda = subjects[0].model.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    tables = []
    for subject in subjects:
        tokens = torch.randint(subject.model.config.vocab_size, (1, length + chunk + _STEPS))
        tokens = tokens.to(subject.model.device)
        subject.begin()
        for first in range(0, min(length, subject.prefill_limit), chunk):
            subject.feed(tokens[:, first : first + chunk])
        phases = (("prefill", [chunk]), ("decode", [1] * _STEPS))
        for phase, counts in phases:
            with profile(activities=activities) as profiler:
                for count in counts:
                    with record_function(f"{subject.name}: {phase}"):
                        subject.feed(tokens[:, -count:])
            target = path.with_name(f"{path.stem}-{_file_name(subject.name)}-{phase}{path.suffix}")
            try:
                profiler.export_chrome_trace(str(target))
            except (OSError, RuntimeError) as error:
                raise InfLLMError(f"--profile {target} cannot be written: {error}") from error
            order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
            averages = profiler.key_averages().table(sort_by=order, row_limit=14)
            tables.append(f"{subject.name}, {phase}, trace in {target}\n{averages}")
        subject.begin()
    return "\n".join(tables)


def _file_name(name: str) -> str:
    return name.replace(":", "-")
