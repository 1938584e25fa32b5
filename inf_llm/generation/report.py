"""A trace as one self-contained HTML file: the passages recalled for each generated token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inf_llm.errors import TextError
from inf_llm.formats import label_of
from inf_llm.generation.citations import Citation, cite, decoded
from inf_llm.generation.landmarks import Landmarks
from inf_llm.hf.trace import spans_of, trace

TEMPLATE = Path(__file__).parent.parent / "assets" / "recall.html"
MAX_TEXTS = 4000
"""Number of passages whose text is in the report, those with the highest scores first."""

CONTEXT = 120
"""Number of characters shown before and after a passage."""


def save_report(
    seen: trace,
    ids: Sequence[int],
    tokenizer: Any,
    path: str | Path,
    *,
    prompt_tokens: int,
    title: str = "",
    row: int = 0,
    landmarks: Sequence[Landmarks] = (),
) -> None:
    """Write a report of the passages that were recalled for each generated token of a row.

    Args:
        seen: a trace of one call of `generate`.
        ids: token ids of the row without padding, prompt and answer.
        tokenizer: the tokenizer of the model.
        path: path of the report.
        prompt_tokens: number of ids that are the prompt.
        title: title of the report.
        row: row of the batch.
        landmarks: landmarks of the documents in the prompt; they label passages with their page or
            heading.

    Raises:
        TextError: the file cannot be written.
    """
    page = TEMPLATE.read_text(encoding="utf-8")
    before, after = page.split("/*DATA*/null")
    data = report_data(seen, ids, tokenizer, prompt_tokens, title, row, landmarks)
    html = before + _escaped(data) + after
    try:
        Path(path).write_text(html, encoding="utf-8", errors="replace")
    except OSError as error:
        raise TextError(f"{path}: cannot be written: {error.strerror or error}") from None


def report_data(
    seen: trace,
    ids: Sequence[int],
    tokenizer: Any,
    prompt_tokens: int,
    title: str,
    row: int,
    landmarks: Sequence[Landmarks] = (),
) -> dict[str, Any]:
    """Return the data of a report in the form that its script reads; see `save_report`."""
    recalls = seen.generated(row)
    prompt_span = 0, prompt_tokens
    text, places = decoded(tokenizer, ids, [prompt_span, *spans_of(recalls).values()])
    named = sorted(place for each in landmarks for place in each.within(text))
    steps = [
        [recall.token, recall.layer, recall.blocks, [round(100 * w) for w in recall.weights]]
        for recall in recalls
    ]
    return {
        "title": title,
        "prompt": prompt_tokens,
        "sinks": seen.settings.n_init,
        "block": seen.settings.block_size,
        "window": seen.settings.n_local,
        "layers": seen.layers,
        "words": [tokenizer.decode([token]) for token in ids[prompt_tokens:]],
        "steps": steps,
        "passages": [
            {
                "blocks": cited.blocks,
                "start": cited.first,
                "end": cited.last,
                "place": label_of(named, cited.start, cited.end),
                "texts": _texts(cited, text) if rank < MAX_TEXTS else None,
            }
            for rank, cited in enumerate(cite(recalls, text, places, places[prompt_span]))
        ],
    }


def _texts(cited: Citation, text: str) -> list[str]:
    """Return the text before a passage, the passage, and the text after it."""
    return [
        text[max(0, cited.start - CONTEXT) : cited.start],
        text[cited.start : cited.end],
        text[cited.end : cited.end + CONTEXT],
    ]


def _escaped(data: dict[str, Any]) -> str:
    """Return the data as JSON in which no text can end the surrounding script element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
