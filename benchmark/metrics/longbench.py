"""LongBench's metrics, as its own scorer defines them (github.com/THUDM/LongBench).

Each metric scores a prediction against one accepted answer. As the official scorer does, `score`
takes the best score over the answers, and uses only the first line in the four few-shot tasks.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from types import ModuleType
from typing import Any

from benchmark.metrics.text import english_f1, normalize_chinese, overlap_f1
from inf_llm.errors import SettingsError
from inf_llm.optional import need

Classes = Sequence[str] | None

# Few-shot tasks: models continue with more examples, so only the first line counts.
FIRST_LINE = frozenset({"trec", "triviaqa", "samsum", "lsht"})

SIMILARITIES = ("difflib", "rapidfuzz")


def _jieba(why: str) -> ModuleType:
    """Return the module jieba, without its log messages about loading a dictionary."""
    jieba = need("jieba", why)
    jieba.setLogLevel(logging.ERROR)
    return jieba


def qa_f1(prediction: str, answer: str, classes: Classes = None) -> float:
    """Return the word F1 after SQuAD's normalisation."""
    return english_f1(prediction, answer)


def qa_f1_chinese(prediction: str, answer: str, classes: Classes = None) -> float:
    """Return the F1 of jieba's words; each word is normalised, and empty words are dropped."""
    return overlap_f1(_chinese_words(prediction), _chinese_words(answer))


def rouge_l(prediction: str, answer: str, classes: Classes = None) -> float:
    """Return ROUGE-L's F of the `rouge` package: summary level, over sets of words.

    As in the official scorer, an error of that package scores 0: for an empty text, a text without
    words, or a sentence that exceeds the recursion limit.
    """
    scorer = need("rouge", "ROUGE-L").Rouge(metrics=["rouge-l"])
    try:
        return float(scorer.get_scores([prediction], [answer], avg=True)["rouge-l"]["f"])
    except (ValueError, RecursionError, AssertionError, ZeroDivisionError):
        return 0.0


def rouge_l_chinese(prediction: str, answer: str, classes: Classes = None) -> float:
    """Return ROUGE-L over jieba's words."""
    cut = _jieba("Chinese ROUGE-L").cut
    return rouge_l(" ".join(cut(prediction)), " ".join(cut(answer)))


def classification(prediction: str, answer: str, classes: Classes = None) -> float:
    """Return 1/n for n class names found in the prediction if the answer is one of them, else 0.

    Names that are a part of the answer are dropped first. As in the official scorer, the list
    shrinks during the iteration, so the name after a dropped one is skipped.
    """
    found = [name for name in classes or () if name in prediction]
    i = 0
    while i < len(found):
        if found[i] in answer and found[i] != answer:
            # list.remove() drops the first equal name, which may be at an index below i.
            found.remove(found[i])
        i += 1
    return 1.0 / len(found) if answer in found else 0.0


def retrieval(prediction: str, answer: str, classes: Classes = None) -> float:
    """Return the share of the prediction's numbers that equal the answer's paragraph number."""
    return _share_of_numbers(prediction, _number_behind("Paragraph ", answer))


def retrieval_chinese(prediction: str, answer: str, classes: Classes = None) -> float:
    """Do the same as `retrieval` for answers of the form 段落N."""
    return _share_of_numbers(prediction, _number_behind("段落", answer))


def count(prediction: str, answer: str, classes: Classes = None) -> float:
    """Return the share of the prediction's numbers that equal the answer as text."""
    return _share_of_numbers(prediction, str(answer))


def code_similarity(prediction: str, answer: str, classes: Classes = None) -> float:
    """Return the `difflib` similarity of the first line of code to the answer, in whole percents.

    The official scorer calls fuzzywuzzy's `ratio`, which uses difflib unless python-Levenshtein is
    installed; `code_similarity_rapidfuzz` is the variant for that case.
    """
    line = _first_line_of_code(prediction)
    if line == answer:
        return 1.0
    return round(100 * SequenceMatcher(None, line, answer).ratio()) / 100


def code_similarity_rapidfuzz(prediction: str, answer: str, classes: Classes = None) -> float:
    """Return the similarity by edit distance, as fuzzywuzzy with python-Levenshtein does."""
    line = _first_line_of_code(prediction)
    if line == answer:
        return 1.0
    ratio = need("rapidfuzz.fuzz", "rapidfuzz code similarity").ratio
    return round(ratio(line, answer)) / 100


def _chinese_words(text: str) -> list[str]:
    words = (normalize_chinese(word) for word in _jieba("Chinese F1").cut(text))
    return [word for word in words if word]


def _number_behind(lead: str, answer: str) -> str:
    found = re.search(lead + r"(\d+)", answer)
    if found is None:
        raise SettingsError(f"answer {answer!r} is malformed: it must read {lead + '<number>'!r}")
    return found.group(1)


def _share_of_numbers(prediction: str, wanted: str) -> float:
    numbers = re.findall(r"\d+", prediction)
    return numbers.count(wanted) / len(numbers) if numbers else 0.0


def _first_line_of_code(prediction: str) -> str:
    """Return the first line without a code fence or comment mark; empty if there is none."""
    for line in prediction.lstrip("\n").split("\n"):
        if not any(mark in line for mark in ("`", "#", "//")):
            return line
    return ""


METRICS: dict[str, Callable[[str, str, Classes], float]] = {
    "narrativeqa": qa_f1,
    "qasper": qa_f1,
    "multifieldqa_en": qa_f1,
    "multifieldqa_zh": qa_f1_chinese,
    "hotpotqa": qa_f1,
    "2wikimqa": qa_f1,
    "musique": qa_f1,
    "dureader": rouge_l_chinese,
    "gov_report": rouge_l,
    "qmsum": rouge_l,
    "multi_news": rouge_l,
    "vcsum": rouge_l_chinese,
    "trec": classification,
    "triviaqa": qa_f1,
    "samsum": rouge_l,
    "lsht": classification,
    "passage_count": count,
    "passage_retrieval_en": retrieval,
    "passage_retrieval_zh": retrieval_chinese,
    "lcc": code_similarity,
    "repobench-p": code_similarity,
}


def score(
    task: str,
    prediction: str,
    answers: Sequence[Any],
    classes: Classes = None,
    similarity: str = "difflib",
) -> float:
    """Return the best score over the accepted answers, 0 to 1.

    `task` is the task's name without the suffix ``_e`` of LongBench-E. A single answer may be given
    as a string instead of a list.
    """
    metric = METRICS[task]
    answers = [answers] if isinstance(answers, str) else answers
    if metric is code_similarity and similarity == "rapidfuzz":
        metric = code_similarity_rapidfuzz
    if task in FIRST_LINE:
        prediction = prediction.lstrip("\n").split("\n")[0]
    return max((metric(prediction, answer, classes) for answer in answers), default=0.0)


def length_bucket(length: int) -> str:
    """Return LongBench-E's bucket for a `length` in words (characters for Chinese)."""
    if length < 4000:
        return "0-4k"
    return "4-8k" if length < 8000 else "8k+"
