"""Text normalisation and token overlap, shared by the benchmarks."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

# The full-width marks that LongBench and InfiniteBench strip, in addition to ASCII punctuation.
CHINESE_PUNCTUATION = frozenset(
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】"  # noqa: RUF001
    "〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."  # noqa: RUF001
)
_ASCII = frozenset(string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize(text: str) -> str:
    """Normalise English: lower case, no ASCII punctuation, no articles, single spaces (SQuAD)."""
    bare = "".join(c for c in text.lower() if c not in _ASCII)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def normalize_chinese(text: str) -> str:
    """Normalise Chinese: lower case, no ASCII or full-width punctuation, no spaces."""
    kept = (c for c in text.lower() if c not in _ASCII and c not in CHINESE_PUNCTUATION)
    return "".join("".join(kept).split())


def overlap_f1(prediction: Sequence[str], truth: Sequence[str]) -> float:
    """Return the F1 of two bags of tokens; 0 if they share no token."""
    shared = sum((Counter(prediction) & Counter(truth)).values())
    if shared == 0:
        return 0.0
    precision = shared / len(prediction)
    recall = shared / len(truth)
    return 2 * precision * recall / (precision + recall)


def english_f1(prediction: str, truth: str) -> float:
    """Return the F1 of the words of two normalised English answers."""
    return overlap_f1(normalize(prediction).split(), normalize(truth).split())
