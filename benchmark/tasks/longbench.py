"""LongBench (Bai et al., 2023): 21 tasks, and the 13 of LongBench-E with evenly spread lengths.

Prompts and answer limits come from the benchmark's own files `dataset2prompt.json` and
`dataset2maxlen.json` beside the data. If the second file is absent, the limits below apply.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.metrics import longbench as metrics
from benchmark.rows import Row, class_names
from benchmark.tasks.base import (
    Benchmark,
    DataError,
    Instance,
    ScoreOptions,
    Source,
    TaskInfo,
    find_file,
    read_samples,
    read_table,
    render,
)

_FOLDERS = ("longbench", "LongBench", ".", "longbench/data")
_FETCH = "Fetch it with: bash scripts/download.sh longbench"

# In few-shot and code tasks the model continues the prompt, so there is no chat template; the
# official runner uses none for them either.
COMPLETION = frozenset({"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"})

MAX_NEW_TOKENS = {
    "narrativeqa": 128,
    "qasper": 128,
    "multifieldqa_en": 64,
    "multifieldqa_zh": 64,
    "hotpotqa": 32,
    "2wikimqa": 32,
    "musique": 32,
    "dureader": 128,
    "gov_report": 512,
    "qmsum": 512,
    "multi_news": 512,
    "vcsum": 512,
    "trec": 64,
    "triviaqa": 32,
    "samsum": 128,
    "lsht": 64,
    "passage_count": 32,
    "passage_retrieval_en": 32,
    "passage_retrieval_zh": 32,
    "lcc": 64,
    "repobench-p": 64,
}

E_TASKS = (
    "qasper",
    "multifieldqa_en",
    "hotpotqa",
    "2wikimqa",
    "gov_report",
    "multi_news",
    "trec",
    "triviaqa",
    "samsum",
    "passage_count",
    "passage_retrieval_en",
    "lcc",
    "repobench-p",
)

# The English and code tasks of InfLLM's table and script. Some papers omit passage_count, whose
# scores are near zero: their mean is about two points higher and not comparable.
ENGLISH_16 = (
    "narrativeqa",
    "qasper",
    "multifieldqa_en",
    "hotpotqa",
    "2wikimqa",
    "musique",
    "gov_report",
    "qmsum",
    "multi_news",
    "trec",
    "triviaqa",
    "samsum",
    "passage_count",
    "passage_retrieval_en",
    "lcc",
    "repobench-p",
)
ENGLISH_15 = tuple(task for task in ENGLISH_16 if task != "passage_count")


class LongBench(Benchmark):
    """Loading and scoring of LongBench and LongBench-E."""

    name = "longbench"

    def names(self) -> tuple[str, ...]:
        return (*MAX_NEW_TOKENS, *(f"{task}_e" for task in E_TASKS))

    def info(self, task: str, source: Source | None = None) -> TaskInfo:
        bare = task.removesuffix("_e")
        limit = MAX_NEW_TOKENS[bare]
        if source is not None:
            limit = _official(source.folder, "dataset2maxlen.json").get(bare, limit)
            if not isinstance(limit, int) or limit < 1:
                raise DataError(
                    f"dataset2maxlen.json has {limit!r} for {bare}: a number of tokens is needed"
                )
        # In samsum, models continue with another "Dialogue:", so the official runner stops at the
        # end of the first line.
        stop = ("\n",) if bare == "samsum" else ()
        return TaskInfo(limit, chat=bare not in COMPLETION, stop=stop)

    def load(self, task: str, source: Source) -> list[Instance]:
        path = find_file(source.folder, _FOLDERS, f"{task}.jsonl", _FETCH)
        prompts = find_file(source.folder, _FOLDERS, "dataset2prompt.json", _FETCH)
        template = read_table(prompts).get(task.removesuffix("_e"))
        if not isinstance(template, str):
            raise DataError(f"{prompts} has no prompt for {task}")
        return read_samples(
            path,
            lambda sample, i: Instance(
                id=str(i),
                prompt=render(template, sample),
                answers=sample["answers"],
                classes=class_names(sample.get("all_classes")),
                length=sample.get("length"),
            ),
        )

    def score(self, task: str, row: Row, options: ScoreOptions) -> float:
        return metrics.score(
            task.removesuffix("_e"),
            row.prediction,
            row.answers,
            row.classes,
            similarity=options.similarity,
        )


def _official(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of a JSON file of the benchmark; empty if it was not downloaded."""
    for sub in _FOLDERS:
        path = folder / sub / name
        if path.is_file():
            return read_table(path)
    return {}
