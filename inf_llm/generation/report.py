"""A trace as one HTML file that needs nothing else: what was recalled for each word."""

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
MOST_TEXTS = 4000
"""Passages whose text goes into the report, the most recalled first."""

CONTEXT = 120
"""Characters shown before and after a passage."""


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
    """Write what was recalled for each generated token of a row.

    Args:
        seen: a trace of one call of `generate`.
        ids: the row's tokens without padding, prompt and answer.
        tokenizer: the model's.
        path: of the file to write.
        prompt_tokens: how many of the ids are the prompt.
        title: says what was run.
        row: of the batch.
        landmarks: of the documents in the prompt, so that passages name their page or heading.

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
    """The numbers and texts of a report, as its script reads them."""
    recalls = seen.generated(row)
    asked = 0, prompt_tokens
    text, places = decoded(tokenizer, ids, [asked, *spans_of(recalls).values()])
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
                "texts": _texts(cited, text) if rank < MOST_TEXTS else None,
            }
            for rank, cited in enumerate(cite(recalls, text, places, places[asked]))
        ],
    }


def _texts(cited: Citation, text: str) -> list[str]:
    """What stands before the passage, the passage, and what comes after."""
    return [
        text[max(0, cited.start - CONTEXT) : cited.start],
        text[cited.start : cited.end],
        text[cited.end : cited.end + CONTEXT],
    ]


def _escaped(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in, whatever the texts say."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
