"""Recalled blocks as passages that can be read: whole words and sentences, neighbours together.

A block may be two tokens long and end within a word. `cite` widens each block to the sentence
around it and merges those that touch; the chat page, the API and the recall report all show what
it gives.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inf_llm.hf.trace import Recall, Span, Tally, spans_of, tally

LONGEST = 300
"""Characters past which neighbours are not merged any more; a longer block stays whole."""
SENTENCE_REACH, WORD_REACH = 240, 40
"""Characters by which an end may move to that of a sentence or line, and else to that of a word."""
_CLOSING = 4  # characters of a sentence's mark and of what is closed after it
_CONTEXT = 4  # tokens decoded before others, since a token's text may depend on those before

_CLOSE = r"""["'\u201d\u2019\u00bb\u300d\u300f)\]\uff09]*"""
_END = re.compile(
    rf"(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)(?<!\b[A-Z])[.!?\u2026]{_CLOSE}(?=\s)"
    rf"|[\u3002\uff01\uff1f]{_CLOSE}"  # Chinese and Japanese, where no space follows
    r"|(?=\n\s*\n)"
)
"""Where a sentence ends: after its mark and what is closed there, or before an empty line."""


@dataclass(frozen=True)
class Citation:
    """A passage, and how much it was recalled.

    Attributes:
        start, end: its characters in the text.
        first, last: tokens [first, last) from its first recalled block to the end of its last.
        blocks: numbers of these blocks, ascending.
        score: mean over all tokens, layers and heads that were looked at of the weight that each
            gave to the best of the blocks: 1 where each ranked one of them first.
        count: how many of them recalled any.
        layers: layers that did, ascending.
    """

    start: int
    end: int
    first: int
    last: int
    blocks: tuple[int, ...]
    score: float
    count: int
    layers: tuple[int, ...]


@dataclass
class _Region:
    """Characters [start, end) of a part of a text, and the blocks that they show."""

    start: int
    end: int
    part: Span
    blocks: list[int]


def cite(
    recalls: Sequence[Recall],
    text: str,
    places: Mapping[Span, Span],
    within: Span | None = None,
    marks: Collection[str] = (),
) -> list[Citation]:
    """What some recalls were of, the most recalled first. No two passages overlap.

    Args:
        recalls: of one row.
        text: of that row.
        places: characters [start, end) in it of the tokens of each recalled block. A block that
            is not there, or has no words, is left out.
        within: characters of a document in the text; passages are either of it or of the rest.
        marks: texts that no passage is widened over, such as special tokens.
    """
    tokens = spans_of(recalls)
    regions = []
    for block, span in tokens.items():
        start, end = places.get(span, (0, 0))
        part = _part(text, start, end, within)
        start, end = max(start, part[0]), min(end, part[1])
        if text[start:end].strip():
            regions.append(_Region(*_widened(text, start, end, part, marks), part, [block]))
    merged = _merged(text, sorted(regions, key=lambda region: (region.start, region.end)))
    owner = {block: number for number, region in enumerate(merged) for block in region.blocks}
    return [_citation(merged[found.group], tokens, found) for found in tally(recalls, owner)]


def _citation(region: _Region, tokens: Mapping[int, Span], found: Tally) -> Citation:
    blocks = sorted(region.blocks)
    return Citation(
        region.start,
        region.end,
        tokens[blocks[0]][0],
        tokens[blocks[-1]][1],
        tuple(blocks),
        found.score,
        found.count,
        found.layers,
    )


def decoded(
    tokenizer: Any, ids: Sequence[int], spans: Collection[Span]
) -> tuple[str, dict[Span, Span]]:
    """The text of token ids, and the characters in it of some spans of them.

    For prompts whose text is not at hand. Special tokens are left out.
    """

    def text_of(first: int, last: int) -> str:
        return str(
            tokenizer.decode(
                ids[first:last], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    at, place = 0, {0: 0}
    for cut in sorted({edge for span in spans for edge in span}):
        context = max(0, at - _CONTEXT)
        place[cut] = place[at] + len(text_of(context, cut)) - len(text_of(context, at))
        at = cut
    return text_of(0, len(ids)), {span: (place[span[0]], place[span[1]]) for span in spans}


def _part(text: str, start: int, end: int, document: Span | None) -> Span:
    """What [start, end) lies in: the document, or what stands before or after it."""
    if document is None:
        return 0, len(text)
    if end <= document[0]:
        return 0, document[0]
    return (document[1], len(text)) if start >= document[1] else document


def _widened(text: str, start: int, end: int, part: Span, marks: Collection[str]) -> Span:
    """The sentences around [start, end), or the lines, or the words; without space at the ends."""
    start += _spaces(text[start:end])
    end = start + len(text[start:end].rstrip())
    low, high = max(part[0], start - SENTENCE_REACH), min(part[1], end + SENTENCE_REACH)
    for mark in marks:
        before, after = text.rfind(mark, low, start), text.find(mark, end, high)
        low = low if before < 0 else before + len(mark)
        high = high if after < 0 else after
    return _start(text, start, low), _end(text, end, high)


def _start(text: str, start: int, low: int) -> int:
    """Where the passage begins, at `low` or later."""
    ends = [found.end() for found in _END.finditer(text, low, start)]
    line = text.rfind("\n", low, start)
    if ends:
        begin = ends[-1]
    elif low == 0 or low > start - SENTENCE_REACH:  # the text begins there, or the document
        begin = low
    elif line >= 0:
        begin = line
    else:
        begin = start - _letters(text[max(low, start - WORD_REACH) : start][::-1])
    return begin + _spaces(text[begin:start])


def _end(text: str, end: int, high: int) -> int:
    """Where the passage ends, at `high` or before."""
    around = _END.finditer(text, max(0, end - _CLOSING), min(len(text), high + 2))
    ends = [found.end() for found in around if end <= found.end() <= high]
    line = text.find("\n", end, high)
    if ends:
        stop = ends[0]
    elif high == len(text) or high < end + SENTENCE_REACH:
        stop = high
    elif line >= 0:
        stop = line
    else:
        stop = end + _letters(text[end : min(high, end + WORD_REACH)])
    return end + len(text[end:stop].rstrip())


def _spaces(text: str) -> int:
    """White space at the beginning."""
    return len(text) - len(text.lstrip())


def _letters(text: str) -> int:
    """What is no white space at the beginning; 0 where nothing else follows, as in Chinese."""
    space = re.search(r"\s", text)
    return space.start() if space else 0


def _merged(text: str, regions: Sequence[_Region]) -> list[_Region]:
    """Regions that touch as one, up to `LONGEST`; past it the later one begins where one ends."""
    merged: list[_Region] = []
    for region in regions:
        last = merged[-1] if merged else None
        if last is None or text[last.end : region.start].strip() or last.part != region.part:
            merged.append(region)
        elif region.end <= last.end or region.end - last.start <= LONGEST:
            last.end = max(last.end, region.end)
            last.blocks += region.blocks
        else:
            region.start = max(region.start, last.end)
            region.start += _spaces(text[region.start : region.end])
            merged.append(region)
    return merged
