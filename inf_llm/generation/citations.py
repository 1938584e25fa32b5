"""Recalled blocks as readable passages: whole words and sentences, with adjacent blocks merged.

A block may have only two tokens and end inside a word. `cite` widens each block to the sentence
around it and merges passages that touch. The chat page, the API and the recall report all show the
passages of `cite`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inf_llm.hf.trace import Recall, Span, Tally, spans_of, tally

LONGEST = 300
"""Most characters of a merged passage; a passage of one longer block stays whole."""
SENTENCE_REACH, WORD_REACH = 240, 40
"""Most characters by which a passage is widened to the end of a sentence or line, or of a word."""
_CLOSING = 4  # characters of a sentence's end mark and the quotes or brackets that close after it
_CONTEXT = 4  # earlier tokens decoded with a token, because its text may depend on them

_CLOSE = r"""["'\u201d\u2019\u00bb\u300d\u300f)\]\uff09]*"""
_END = re.compile(
    rf"(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)(?<!\b[A-Z])[.!?\u2026]{_CLOSE}(?=\s)"
    rf"|[\u3002\uff01\uff1f]{_CLOSE}"  # Chinese and Japanese, where no space follows
    r"|(?=\n\s*\n)"
)
"""The end of a sentence: after its end mark and closing quotes, or before an empty line."""


@dataclass(frozen=True)
class Citation:
    """A passage with the score of its recalled blocks.

    Attributes:
        start, end: characters [start, end) of the passage in the text.
        first, last: tokens [first, last) from its first recalled block to the end of its last.
        blocks: numbers of these blocks, ascending.
        score: mean, over all given recalls, of the largest weight of the blocks in the recall; 1 if
            every recall ranked one of the blocks first. See `Recall.weights`.
        count: number of recalls with at least one of the blocks.
        layers: layers of these recalls, ascending.
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
    """Characters [start, end) in a part of a text, and the recalled blocks in them."""

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
    """Return the passages of recalled blocks without overlaps, the highest score first.

    Args:
        recalls: recalls of one row.
        text: text of that row.
        places: characters [start, end) in the text by the token span of a recalled block. Blocks
            that have no entry, or only white space, are left out.
        within: characters of a document in the text; no passage crosses the document's ends.
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


def _citation(region: _Region, tokens: Mapping[int, Span], tally: Tally) -> Citation:
    blocks = sorted(region.blocks)
    return Citation(
        region.start,
        region.end,
        tokens[blocks[0]][0],
        tokens[blocks[-1]][1],
        tuple(blocks),
        tally.score,
        tally.count,
        tally.layers,
    )


def decoded(
    tokenizer: Any, ids: Sequence[int], spans: Collection[Span]
) -> tuple[str, dict[Span, Span]]:
    """Return the text of token ids, and the characters in the text of each span of tokens.

    For prompts whose text is not available. Special tokens are left out.
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
    """Return the part that contains [start, end): the document, or the text before or after it."""
    if document is None:
        return 0, len(text)
    if end <= document[0]:
        return 0, document[0]
    return (document[1], len(text)) if start >= document[1] else document


def _widened(text: str, start: int, end: int, part: Span, marks: Collection[str]) -> Span:
    """Widen [start, end) to whole sentences, lines or words, without white space at the ends."""
    start += _spaces(text[start:end])
    end = start + len(text[start:end].rstrip())
    low, high = max(part[0], start - SENTENCE_REACH), min(part[1], end + SENTENCE_REACH)
    for mark in marks:
        before, after = text.rfind(mark, low, start), text.find(mark, end, high)
        low = low if before < 0 else before + len(mark)
        high = high if after < 0 else after
    return _start(text, start, low), _end(text, end, high)


def _start(text: str, start: int, low: int) -> int:
    """Return the start of the widened passage, at `low` or later."""
    ends = [found.end() for found in _END.finditer(text, low, start)]
    line = text.rfind("\n", low, start)
    if ends:
        begin = ends[-1]
    elif low == 0 or low > start - SENTENCE_REACH:  # the text, its part or a mark ends at `low`
        begin = low
    elif line >= 0:
        begin = line
    else:
        begin = start - _letters(text[max(low, start - WORD_REACH) : start][::-1])
    return begin + _spaces(text[begin:start])


def _end(text: str, end: int, high: int) -> int:
    """Return the end of the widened passage, at `high` or before."""
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
    """Return the number of white-space characters at the start."""
    return len(text) - len(text.lstrip())


def _letters(text: str) -> int:
    """Return the number of characters before the first white space; 0 if there is none.

    Chinese text, for example, has no white space.
    """
    space = re.search(r"\s", text)
    return space.start() if space else 0


def _merged(text: str, regions: Sequence[_Region]) -> list[_Region]:
    """Merge regions that touch, up to `LONGEST` characters.

    A region that would exceed `LONGEST` begins where the one before it ends.
    """
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
