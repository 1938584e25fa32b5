"""InfiniteBench's metrics, as its scorer defines them (github.com/OpenBMB/InfiniteBench, 88b3daa).

A label is the value that the benchmark calls `ground_truth`. The published data gives a single
answer as a value or as a list of one value; both are accepted. If the official scorer would raise
an exception (an empty prediction in En.MC, a decimal in Math.Find), the prediction scores 0 here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from benchmark.metrics.rouge_lsum import rouge_lsum
from benchmark.metrics.text import english_f1, normalize_chinese, overlap_f1
from inf_llm.errors import SettingsError


def passkey(prediction: str, label: Any) -> float:
    """Return 1 if the first run of digits is the label."""
    found = re.search(r"[0-9]+", prediction)
    return float((found.group() if found else "") in _strings(label))


def kv_retrieval(prediction: str, label: Any) -> float:
    """Return 1 if the value is a separate word of the prediction."""
    words = _without(prediction, "\n:\"'.,?!{}").split()
    return float(any(value in words for value in _strings(label)))


def code_run(prediction: str, label: Any) -> float:
    """Return 1 if the last word is the return value."""
    words = _without(prediction.strip(), "\n.`'\":").split()
    try:
        return float(bool(words) and int(words[-1]) in _values(label))
    except ValueError:
        return 0.0


def code_debug(prediction: str, label: Any) -> float:
    """Return 1 if the prediction names the right option at its start or after "is:" or "answer:".

    At the start, the right letter must be followed by a full stop or a colon. `label` is the name
    of the wrong function and the letter of its option.
    """
    function, letter = label[0], label[1]
    prediction = prediction.strip()
    if prediction[:2] in (f"{letter}.", f"{letter}:"):
        return 1.0
    text = prediction
    for mark in ("\n", "`", "'", '"', "-", "*", "Option", "option"):
        text = text.replace(mark, " ")
    text = _single_spaces(text)
    rest = _behind_first(("answer is:", "is:", "answer:"), text)
    return float(rest is not None and rest.startswith((letter, function)))


def longbook_choice_eng(prediction: str, label: Any) -> float:
    """Return 1 if the prediction chooses the right option.

    The choice is the first character if that is one of A to D; else the whole prediction if it
    equals the label; else the text after "answer is" or the like; else the first separate word
    made of these letters. `label` is the right option's text and its letter.
    """
    prediction = prediction.strip()
    if prediction[:1] and prediction[0] in "ABCD":
        return float(prediction[0] in label)
    if prediction in label:
        return 1.0
    text = _single_spaces(_without(prediction, "\n\"'.,?!{}"))
    rest = _behind_first(("answer is:", "answer:", "answer is", "option is"), text)
    if rest is not None:
        return float(rest.startswith(tuple(label)))
    # As in the official scorer, a word may be any substring of "ABCD", such as "AB".
    for word in text.split():
        if word in "ABCD":
            return float(word in label)
    return 0.0


def longdialogue_qa_eng(prediction: str, label: Any) -> float:
    """Return 1 if the label's first name is a word of the prediction in upper case."""
    words = _without(prediction, "\n:\"'.,?!{}").upper().split()
    return float(_strings(label)[0] in words)


def longbook_qa_eng(prediction: str, label: Any) -> float:
    """Return the best word F1 over the accepted answers."""
    return max((english_f1(prediction, answer) for answer in _strings(label)), default=0.0)


def longbook_qa_chn(prediction: str, label: Any) -> float:
    """Return the best F1 over the accepted answers; each character is a token."""
    normalized = normalize_chinese(prediction)
    return max((overlap_f1(normalized, normalize_chinese(a)) for a in _strings(label)), default=0.0)


def longbook_sum_eng(prediction: str, label: Any) -> float:
    """Return the best ROUGE-Lsum F over the accepted summaries."""
    return max((rouge_lsum(prediction, summary) for summary in _strings(label)), default=0.0)


def math_find(prediction: str, label: Any) -> float:
    """Return 1 if the first number is the label; a decimal never equals an integer label."""
    match = re.search(r"\d+\.\d+|\d+", prediction)
    if match is None:
        return 0.0
    number, value = match.group(), _values(label)[0]
    if isinstance(value, float):
        return float(float(number) == value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise SettingsError(f"math_find label {value!r} is not a number: give an int or a float")
    return float(_same_number(number, value))


def math_calc(prediction: str, label: Any, skip: int = 0) -> float:
    """Return the share of the intermediate values that are right, up to the first wrong one.

    `skip` is the count of numbers to drop from the start of the prediction. The official scorer
    drops one for GPT-4, whose prompt makes the model repeat the first operand.
    """
    label = label[0] if isinstance(label[0], list) else label
    numbers = re.findall(r"[0-9]+", prediction)[skip:]
    right = 0
    for number, value in zip(numbers, label, strict=False):
        if not _same_number(number, value):
            break
        right += 1
    return right / len(label)


METRICS: dict[str, Callable[[str, Any], float]] = {
    "passkey": passkey,
    "number_string": passkey,
    "kv_retrieval": kv_retrieval,
    "longdialogue_qa_eng": longdialogue_qa_eng,
    "longbook_sum_eng": longbook_sum_eng,
    "longbook_choice_eng": longbook_choice_eng,
    "longbook_qa_eng": longbook_qa_eng,
    "longbook_qa_chn": longbook_qa_chn,
    "math_find": math_find,
    "math_calc": math_calc,
    "code_run": code_run,
    "code_debug": code_debug,
}


def score(task: str, prediction: str, label: Any, skip_first_number: bool = False) -> float:
    """Return the score of one prediction, 0 to 1."""
    if task == "math_calc":
        return math_calc(prediction, label, skip=int(skip_first_number))
    return METRICS[task](prediction, label)


def _same_number(digits: str, value: int) -> bool:
    """Compare as text, because int() refuses thousands of digits; `digits` has no sign."""
    return (digits.lstrip("0") or "0") == str(value)


def _values(label: Any) -> list[Any]:
    return list(label) if isinstance(label, (list, tuple)) else [label]


def _strings(label: Any) -> list[str]:
    return [str(value) for value in _values(label)]


def _without(text: str, marks: str) -> str:
    return text.translate(dict.fromkeys(map(ord, marks), " "))


def _single_spaces(text: str) -> str:
    return re.sub(" {2,}", " ", text)


def _behind_first(leads: tuple[str, ...], text: str) -> str | None:
    """Return the text one character after the first lead that occurs; None if none occurs."""
    for lead in leads:
        at = text.find(lead)
        if at >= 0:
            return text[at + len(lead) + 1 :]
    return None
