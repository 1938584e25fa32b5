"""InfiniteBench (Zhang et al., 2024): 12 tasks of about 100,000 tokens and more.

The official prompt texts are not stored here. `prompts` names a set that `scripts/download.sh`
fetches:

- ``infllm`` (the default): `dataset2prompt.json` of the published InfLLM harness;
- ``gpt4``, ``yarn_mistral``, ``claude2``: the sets of the benchmark's own `prompt.py`;
- ``plain``: the document, an empty line, the sample's own question, for models without
  instruction tuning. This set needs no download; a few tasks have a wording of their own.

The answer limits are those of the InfLLM harness.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from benchmark.metrics import infinitebench as metrics
from benchmark.rows import Row
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
from benchmark.tasks.official import read_dict

_FOLDERS = ("infinitebench", "infinite-bench", "InfiniteBench", "infinitebench/synthetic", ".")
_FETCH = "Fetch it with: bash scripts/download.sh infinitebench"
_FETCH_PROMPTS = f"{_FETCH}, or choose --prompts plain, which needs no file"

MAX_NEW_TOKENS = {
    "passkey": 32,
    "number_string": 32,
    "kv_retrieval": 100,
    "longdialogue_qa_eng": 32,
    "longbook_sum_eng": 1536,
    "longbook_choice_eng": 32,
    "longbook_qa_eng": 32,
    "longbook_qa_chn": 32,
    "math_find": 32,
    "math_calc": 64000,
    "code_run": 32,
    "code_debug": 32,
}

# The task lists of the printed means: publications average this benchmark over different lists.
INFLLM_7 = (
    "passkey",
    "number_string",
    "kv_retrieval",
    "longbook_choice_eng",
    "longbook_qa_eng",
    "longbook_sum_eng",
    "math_find",
)
SCRIPT_6 = (
    "passkey",
    "number_string",
    "kv_retrieval",
    "code_debug",
    "math_find",
    "longbook_choice_eng",
)

_LETTERS = "ABCD"
_OPTION_TASKS = frozenset({"code_debug", "longbook_choice_eng"})
_PLAIN = {
    "longbook_choice_eng": "{context}\n\n{question}\nA. {OPTION_A}\nB. {OPTION_B}\n"
    "C. {OPTION_C}\nD. {OPTION_D}\nAnswer:",
    "code_debug": "{context}\n\nA. {OPTION_A}\nB. {OPTION_B}\nC. {OPTION_C}\nD. {OPTION_D}\n"
    "Wrong function:",
    "passkey": "{context}\n{input} The pass key is",
    "number_string": "{context}\n{input} The sequence of digits is",
    "longbook_sum_eng": "{context}\n\nSummary:",
    "math_calc": "{context}\n",
    "longdialogue_qa_eng": "{context}\n\n$$MASK$$ is",
}


class InfiniteBench(Benchmark):
    """Loading and scoring of InfiniteBench."""

    name = "infinitebench"
    prompt_sets = ("infllm", "gpt4", "yarn_mistral", "claude2", "plain")

    def names(self) -> tuple[str, ...]:
        return tuple(MAX_NEW_TOKENS)

    def info(self, task: str, source: Source | None = None) -> TaskInfo:
        return TaskInfo(MAX_NEW_TOKENS[task])

    def load(self, task: str, source: Source) -> list[Instance]:
        path = find_file(source.folder, _FOLDERS, f"{task}.jsonl", _FETCH)
        template = _template(task, source)
        return read_samples(path, lambda sample, i: self._instance(task, sample, template, i))

    def score(self, task: str, row: Row, options: ScoreOptions) -> float:
        return metrics.score(task, row.prediction, row.answers, options.skip_first_number)

    @staticmethod
    def _instance(task: str, sample: Mapping[str, Any], template: str, index: int) -> Instance:
        fields = _fields(task, sample)
        return Instance(
            id=str(sample.get("id", index)),
            prompt=render(template, fields),
            answers=_label(task, sample),
            length=len(fields["context"].split()),
        )


def _template(task: str, source: Source) -> str:
    chosen = source.prompts
    if chosen == "plain":
        return _PLAIN.get(task, "{context}\n\n{input}")
    if chosen == "infllm":
        path = find_file(source.folder, _FOLDERS, "infllm_prompts.json", _FETCH_PROMPTS)
        table = read_table(path)
    else:
        path = find_file(source.folder, _FOLDERS, "prompt.py", _FETCH_PROMPTS)
        table = read_dict(path, f"{chosen}_templates")
    if task not in table:
        raise DataError(f"{path} has no prompt for {task} in the set {chosen!r}")
    return str(table[task])


def _fields(task: str, sample: Mapping[str, Any]) -> dict[str, str]:
    """Return all fields of a sample that the templates of any prompt set use."""
    fields = {
        "context": str(sample.get("content", sample.get("context", ""))),
        "input": str(sample.get("input", "")),
        "question": str(sample.get("input", "")),
        "prompt": str(sample.get("prompt", "")),
    }
    fields |= {f"OPTION_{x}": o for x, o in zip(_LETTERS, sample.get("options", ()), strict=False)}
    return fields | _SPECIAL.get(task, lambda _: {})(fields)


def _code_run_fields(fields: Mapping[str, str]) -> dict[str, str]:
    call = _must_find(r"func_[0-9]+\(-?[0-9]+\)", fields["input"], "a call such as func_1(2)")
    return {"func_call": call, "func": call.split("(")[0]}


def _math_find_fields(fields: Mapping[str, str]) -> dict[str, str]:
    wanted = _must_find(r"The .+ of", fields["input"], "'The ... of'")
    return {"prefix": f"What is {wanted.lower().removesuffix(' of')} in the following list?"}


def _kv_fields(fields: Mapping[str, str]) -> dict[str, str]:
    return {"key": _must_find(r'"[^"]*"', fields["input"], "a quoted key")}


_SPECIAL = {
    "code_run": _code_run_fields,
    "math_find": _math_find_fields,
    "kv_retrieval": _kv_fields,
}


def _must_find(pattern: str, text: str, what: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise DataError(f"the question {text!r} is malformed: it must hold {what}")
    return match.group()


def _label(task: str, sample: Mapping[str, Any]) -> Any:
    """Return the answer; for tasks with options, the right option's text and letter."""
    answer = sample["answer"]
    if task not in _OPTION_TASKS:
        return answer
    values = answer if isinstance(answer, list) else [answer]
    if len(values) == 2 and values[1] in _LETTERS:
        return values
    return [values[0], _LETTERS[sample["options"].index(values[0])]]
