"""LongEval's line retrieval (Li et al., 2023) on its published cases: ``longeval-<lines>``.

A case is a whole prompt. The document ends after the last line of the record, and the rest is the
question. `needles.py` generates such records of any length.
"""

from __future__ import annotations

from benchmark.rows import Row
from benchmark.tasks.base import (
    Benchmark,
    Instance,
    Prompt,
    ScoreOptions,
    Source,
    TaskInfo,
    find_file,
    read_samples,
)
from inf_llm.needles.scoring import last_number

_SIZES = (200, 300, 400, 500, 600, 680)
_FOLDERS = ("longeval", "LongEval", ".")
_FETCH = "Fetch it with: bash scripts/download.sh longeval"


class LongEval(Benchmark):
    """Loading and scoring of the published line retrieval cases."""

    name = "longeval"

    def names(self) -> tuple[str, ...]:
        return tuple(f"longeval-{n}" for n in _SIZES)

    def info(self, task: str, source: Source | None = None) -> TaskInfo:
        return TaskInfo(max_new_tokens=100)

    def load(self, task: str, source: Source) -> list[Instance]:
        lines = task.removeprefix("longeval-")
        path = find_file(source.folder, _FOLDERS, f"{lines}_lines.jsonl", _FETCH)
        return read_samples(
            path,
            lambda case, i: Instance(
                id=str(i),
                prompt=_cut(case["prompt"]),
                answers=[str(case["expected_number"])],
                length=len(case["prompt"].split()),
            ),
        )

    def score(self, task: str, row: Row, options: ScoreOptions) -> float:
        return last_number(row.prediction, row.answers)


def _cut(prompt: str) -> Prompt:
    end = prompt.rfind(">\n")
    return Prompt(prompt[: end + 2], prompt[end + 2 :]) if end >= 0 else Prompt("", prompt)
