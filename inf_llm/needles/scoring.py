"""Scoring rules for answers, which the needle tasks and the benchmark share.

Every rule maps (prediction, answers) to a score between 0 and 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from inf_llm.errors import SettingsError
from inf_llm.registry import nearest


def first_number(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if the first run of digits is one of the answers, digit for digit."""
    match = re.search(r"[0-9]+", prediction)
    return float(match is not None and match.group() in answers)


def last_number(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if the last run of digits equals an answer as a number (LongEval's rule)."""
    numbers = re.findall(r"[0-9]+", prediction)
    return float(bool(numbers) and numbers[-1].lstrip("0") in {a.lstrip("0") for a in answers})


def has_word(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if one of the answers occurs in the prediction as a separate word."""
    words = re.sub(r"""[\n:"'.,?!{}]""", " ", prediction).split()
    return float(any(answer in words for answer in answers))


def contains_all(prediction: str, answers: Sequence[str]) -> float:
    """Return the share of the answers that occur in the prediction, ignoring case."""
    text = prediction.lower()
    return sum(answer.lower() in text for answer in answers) / len(answers)


def contains_any(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if one of the answers occurs in the prediction, ignoring case."""
    text = prediction.lower()
    return float(any(answer.lower() in text for answer in answers))


RULES: dict[str, Callable[[str, Sequence[str]], float]] = {
    "first_number": first_number,
    "last_number": last_number,
    "has_word": has_word,
    "contains_all": contains_all,
    "contains_any": contains_any,
}


def score(rule: str, prediction: str, answers: Sequence[str]) -> float:
    """Return the score of one prediction under a rule of `RULES`."""
    if rule not in RULES:
        accepted = ", ".join(RULES)
        hint = nearest(rule, RULES)
        raise SettingsError(f"{rule!r} is not a scoring rule; {hint}accepted: {accepted}")
    return RULES[rule](prediction, answers)


def exact_match(rule: str, prediction: str, answers: Sequence[str]) -> bool:
    """Whether the prediction is completely right under the rule."""
    return score(rule, prediction, answers) == 1.0
