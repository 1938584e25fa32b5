"""The registry of benchmarks, one line each, and the look-up of a benchmark by task name."""

from __future__ import annotations

from functools import lru_cache

from benchmark.tasks.base import Benchmark
from inf_llm.errors import SettingsError
from inf_llm.registry import Registry, nearest

BENCHMARKS = Registry(
    "benchmark",
    {
        "longbench": "benchmark.tasks.longbench:LongBench",
        "infinitebench": "benchmark.tasks.infinitebench:InfiniteBench",
        "longeval": "benchmark.tasks.longeval:LongEval",
        "ruler": "benchmark.tasks.ruler:Ruler",
        "needles": "benchmark.tasks.needles:Needles",
    },
    key="benchmark",
)


@lru_cache(maxsize=1)
def benchmarks() -> tuple[Benchmark, ...]:
    """Return one instance of each benchmark."""
    return tuple(BENCHMARKS.get(name)() for name in BENCHMARKS)


def owner(task: str) -> Benchmark:
    """Return the benchmark that owns a task.

    Raises:
        SettingsError: no benchmark owns the task; the message names the nearest task.
    """
    for benchmark in benchmarks():
        if benchmark.owns(task):
            return benchmark
    raise SettingsError(_unknown(task))


def _unknown(task: str) -> str:
    known = {benchmark.name: benchmark.names() for benchmark in benchmarks()}
    everything = [name for names in known.values() for name in names]
    bare = task.split("@")[0]
    generated = [benchmark for benchmark in benchmarks() if benchmark.owns(f"{bare}@8k")]
    if bare != task and generated:
        return f"{task!r} lacks a length behind the @: write {bare}@8k"
    if bare != task and bare in everything:
        return f"{task!r} is not a known task: {bare} is not generated, so it takes no @length"
    if bare == task and task in everything:
        return f"{task!r} is generated and needs a length, such as {task}@8k"
    listed = "; ".join(f"{name}: {', '.join(names)}" for name, names in known.items())
    return f"{task!r} is not a known task; {nearest(bare, everything)}accepted: {listed}"
