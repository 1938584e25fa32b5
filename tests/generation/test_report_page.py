"""The recall report in a real browser: it ranks and quotes what `cite` found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import inf_llm
from inf_llm.generation import save_report
from inf_llm.generation.citations import cite, decoded
from inf_llm.hf.trace import spans_of
from tests.browser import browser, needs_browser
from tests.tiny import SETTINGS, tiny_model, tiny_tokenizer

pytestmark = [pytest.mark.slow, needs_browser]

TEXT = " ".join(f"Sentence number {number} is here." for number in range(40))
ROWS = """return [...document.querySelectorAll('#passages li')].map((row) =>
    [row.querySelector('.where').textContent, row.querySelector('b').textContent])"""


def test_the_page_ranks_and_quotes_as_cite_does(tmp_path: Path) -> None:
    model = inf_llm.patch(tiny_model(), type="inf-llm", **SETTINGS)
    tokenizer = tiny_tokenizer()
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    with inf_llm.trace(model, prompts=False) as trace:
        out = model.generate(ids, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    row, prompt_span = out[0].tolist(), (0, ids.shape[1])
    file = tmp_path / "report.html"
    save_report(trace, row, tokenizer, file, prompt_tokens=prompt_span[1])
    with browser(1200, 900, tmp_path / "profile") as page:
        page.get(file.as_uri())
        all_words = page.execute_script(ROWS)
        page.execute_script("document.querySelector('#answer button').click()")
        one_word = page.execute_script(ROWS)
    text, places = decoded(tokenizer, row, [prompt_span, *spans_of(trace.generated()).values()])
    found = cite(trace.generated(), text, places, places[prompt_span])
    assert found
    assert [quote for _, quote in all_words] == [text[c.start : c.end] for c in found][:20]
    assert [_score(where) for where, _ in all_words] == pytest.approx(
        [cited.score for cited in found][:20], abs=0.01
    )
    best = cite(trace.generated(token=0), text, places, places[prompt_span])[0]
    assert _score(one_word[0][0]) == pytest.approx(best.score, abs=0.01)


def _score(where: str) -> float:
    return float(where.removeprefix("score ")[:4])
