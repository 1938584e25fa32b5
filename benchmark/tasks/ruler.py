"""RULER's 13 tasks (Hsieh et al., 2024), generated: ``niah_single_1@8k``, ``vt@32k``, ``qa_1@16k``.

The tasks follow the published recipes. The wording is this project's own by default. With
``--prompts ruler`` it is RULER's, from the files `constants.py` and `niah.py` that
`scripts/download.sh ruler` fetches; only scores with RULER's wording are comparable with published
ones. `qa_1` and `qa_2` read SQuAD and HotpotQA.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from benchmark.tasks.base import Source, TaskInfo, find_file
from benchmark.tasks.needles import Needles
from benchmark.tasks.official import read_dict, read_string
from inf_llm.needles import Family, family
from inf_llm.needles.aggregate import CommonWords, Frame, FrequentWords, VariableTracking
from inf_llm.needles.niah import KeyedNeedles
from inf_llm.needles.niah import Wording as NeedleWording
from inf_llm.needles.qa import QA, DocumentQA, Question, QuestionSet
from inf_llm.needles.qa import Wording as QAWording

_FOLDERS = ("ruler", "RULER", ".")
_FETCH = "Fetch it with: bash scripts/download.sh ruler"
_QUESTION_FILES = {"qa_1": "squad.json", "qa_2": "hotpotqa.json"}

TASKS_13 = (
    "niah_single_1",
    "niah_single_2",
    "niah_single_3",
    "niah_multikey_1",
    "niah_multikey_2",
    "niah_multikey_3",
    "niah_multivalue",
    "niah_multiquery",
    "vt",
    "cwe",
    "fwe",
    "qa_1",
    "qa_2",
)


class Ruler(Needles):
    """RULER's families under their own names."""

    name = "ruler"
    prompt_sets = ("own", "ruler")

    def names(self) -> tuple[str, ...]:
        return TASKS_13

    def info(self, task: str, source: Source | None = None) -> TaskInfo:
        # RULER wraps the question in the model's chat template, and the model continues after the
        # answer prefix. Here, with a template, the prefix is part of the request.
        return TaskInfo(self.family_of(task).max_new_tokens)

    def family_of(self, task: str) -> Family:
        bare = task.partition("@")[0]
        return replace(QA, name=bare) if bare in _QUESTION_FILES else family(bare)

    def make(self, task: str, source: Source) -> Family:
        made = self.family_of(task)
        if isinstance(made, DocumentQA):
            made = replace(made, source=_question_set(made.name, source.folder))
        return _official_wording(made, source.folder) if source.prompts == "ruler" else made


def _official_wording(made: Family, folder: Path) -> Family:
    """Return the family with the wording of the benchmark's `constants.py`."""
    table = read_dict(find_file(folder, _FOLDERS, "constants.py", _FETCH), "TASKS")
    if isinstance(made, KeyedNeedles):
        return replace(made, wording=_needle_wording(made, table["niah"], folder))
    if isinstance(made, DocumentQA):
        before, question, lead = _parts(table["qa"])
        return replace(made, wording=QAWording(before, QAWording.document, question, lead))
    names = {
        VariableTracking: "variable_tracking",
        CommonWords: "common_words_extraction",
        FrequentWords: "freq_words_extraction",
    }
    before, question, lead = _parts(table[names[type(made)]], "num_v", "{n}")
    return replace(made, frame=Frame(before, question, lead))  # type: ignore[call-arg]


def _needle_wording(made: KeyedNeedles, row: dict[str, str], folder: Path) -> NeedleWording:
    """Return RULER's wording: "numbers" in needles, singular in questions with one answer."""
    needle = read_string(find_file(folder, _FOLDERS, "niah.py", _FETCH), "needle")
    needle = needle.replace("{type_needle_v}", "{kind}s")
    one = made.queries * made.values == 1
    parts = _parts(row, "type_needle_v", "{kind}" if one else "{kind}s")
    return NeedleWording(needle, *(map(_singular, parts) if one else parts))


def _parts(row: dict[str, str], field: str = "", ours: str = "") -> tuple[str, str, str]:
    """Return a template's parts before and after the document, and the answer prefix.

    `field` is RULER's name of a template field, and `ours` replaces it.
    """
    before, question = row["template"].split("{context}")
    parts = (before, question, row["answer_prefix"])
    theirs = "{" + field + "}"
    return tuple(part.replace(theirs, ours) for part in parts)  # type: ignore[return-value]


def _singular(text: str) -> str:
    """Reword a text for a single answer, as RULER does."""
    return text.replace("Some", "A").replace("are all", "is").replace("are", "is")


def _question_set(bare: str, folder: Path) -> QuestionSet:
    path = find_file(folder, _FOLDERS, _QUESTION_FILES[bare], _FETCH)
    data = json.loads(path.read_text(encoding="utf-8"))
    return _squad(data) if bare == "qa_1" else _hotpotqa(data)


def _squad(data: dict) -> QuestionSet:
    """Return SQuAD 2's answerable questions; near distractors are the article's paragraphs."""
    paragraphs = [(a, p) for a, article in enumerate(data["data"]) for p in article["paragraphs"]]
    documents = sorted({p["context"] for _, p in paragraphs})
    number = {text: i for i, text in enumerate(documents)}
    articles: dict[int, list[int]] = {}
    for article, p in paragraphs:
        articles.setdefault(article, []).append(number[p["context"]])
    questions = []
    for article, p in paragraphs:
        own = number[p["context"]]
        near = tuple(i for i in articles[article] if i != own)
        for qa in p["qas"]:
            if not qa["is_impossible"]:
                answers = tuple(answer["text"] for answer in qa["answers"])
                questions.append(Question(qa["question"], answers, (own,), near))
    return QuestionSet(questions, documents)


def _hotpotqa(data: list) -> QuestionSet:
    """Return HotpotQA's questions, each with its ten documents."""
    texts = [[f"{title}\n{''.join(lines)}" for title, lines in row["context"]] for row in data]
    documents = sorted({text for row in texts for text in row})
    number = {text: i for i, text in enumerate(documents)}
    questions = [
        Question(row["question"], (row["answer"],), tuple(number[text] for text in own))
        for row, own in zip(data, texts, strict=True)
    ]
    return QuestionSet(questions, documents)
