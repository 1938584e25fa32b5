"""Passages that were recalled for an answer, as JSON of the API."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from inf_llm.generation.citations import Citation, cite, decoded
from inf_llm.hf.trace import spans_of, trace
from inf_llm.serve.documents import Sources
from inf_llm.serve.prompts import Prompt

MAX_PASSAGES = 12
"""Most passages listed with an answer."""


def passages(
    tokenizer: Any, watch: trace | None, prompt: Prompt, sources: Sources
) -> list[dict[str, Any]]:
    """List the passages recalled for an answer, the most recalled first; empty without a trace."""
    if watch is None:
        return []
    recalls = watch.generated()
    spans = spans_of(recalls).values()
    if prompt.offsets is None:
        text, places = decoded(tokenizer, prompt.ids.tolist(), spans)
    else:
        text, ranges = prompt.text, {span: prompt.place(*span) for span in spans}
        places = {span: place for span, place in ranges.items() if place is not None}
    cited = cite(recalls, text, places, prompt.document, tokenizer.all_special_tokens)
    return [
        {
            **_tokens(passage, prompt),
            "score": round(passage.score, 4),
            "recalls": passage.count,
            "layers": list(passage.layers),
            "text": text[passage.start : passage.end],
            **_in_document(passage, prompt, sources),
        }
        for passage in cited[:MAX_PASSAGES]
    ]


def _tokens(passage: Citation, prompt: Prompt) -> dict[str, int]:
    """Token range of a passage; the range of its blocks where the tokenizer gives no offsets."""
    if prompt.offsets is None:
        return {"start": passage.first, "end": passage.last}
    last = bisect_left(prompt.offsets, passage.end, key=lambda span: span[0])
    return {"start": prompt.tokens_before(passage.start), "end": last}


def _in_document(passage: Citation, prompt: Prompt, sources: Sources) -> dict[str, Any]:
    """Document, character range and page of a passage; None values outside of any document."""
    start = None if prompt.document is None else prompt.document[0]
    place = None if start is None else sources.place(passage.start - start, passage.end - start)
    if place is None:
        return {"document": None, "characters": None, "label": None}
    document, first, last = place
    return {
        "document": {"id": document.id, "name": document.name},
        "characters": [first, last],
        "label": document.label(first, last) or None,
    }
