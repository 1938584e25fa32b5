"""ROUGE-Lsum as the `rouge_score` package computes it, without that package.

InfiniteBench scores summaries with ROUGE-Lsum. Texts are in lower case; words are runs of
``a-z0-9`` without stemming; a line is a sentence. The score uses the union LCS over the lines (Lin,
2004), and each word counts at most as often as it occurs on both sides.
"""

from __future__ import annotations

import re
from collections import Counter

Words = list[str]


def rouge_lsum(prediction: str, summary: str) -> float:
    """Return F of ROUGE-Lsum; 0 if either text has no word."""
    predicted, expected = _sentences(prediction), _sentences(summary)
    n_predicted, n_expected = sum(map(len, predicted)), sum(map(len, expected))
    if not n_predicted or not n_expected:
        return 0.0
    left_predicted = Counter(word for sentence in predicted for word in sentence)
    left_expected = Counter(word for sentence in expected for word in sentence)
    hits = 0
    for sentence in expected:
        for i in _union_lcs(sentence, predicted):
            word = sentence[i]
            if left_predicted[word] > 0 and left_expected[word] > 0:
                hits += 1
                left_predicted[word] -= 1
                left_expected[word] -= 1
    if not hits:
        return 0.0
    precision, recall = hits / n_predicted, hits / n_expected
    return 2 * precision * recall / (precision + recall)


def _sentences(text: str) -> list[Words]:
    return [re.findall("[a-z0-9]+", line.lower()) for line in text.split("\n") if line]


def _union_lcs(sentence: Words, others: list[Words]) -> list[int]:
    """Return the indices of `sentence` that are in its LCS with any of the others."""
    places: set[int] = set()
    for other in others:
        places.update(_lcs_places(sentence, other))
    return sorted(places)


def _lcs_places(sentence: Words, other: Words) -> list[int]:
    """Return the indices of `sentence` in an LCS; ties are broken as in `rouge_score`."""
    rows, columns = len(sentence), len(other)
    table = [[0] * (columns + 1)]
    for word in sentence:
        above = table[-1]
        row = [0]
        for j, other_word in enumerate(other):
            row.append(above[j] + 1 if other_word == word else max(above[j + 1], row[j]))
        table.append(row)
    places = []
    i, j = rows, columns
    while i and j:
        if sentence[i - 1] == other[j - 1]:
            i, j = i - 1, j - 1
            places.append(i)
        elif table[i][j - 1] > table[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return places
