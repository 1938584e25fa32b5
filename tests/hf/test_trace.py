"""What a trace tells is what the memory did, and nobody pays for it who does not trace."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.attention.base import running
from inf_llm.errors import TextError, UnsupportedModelError
from inf_llm.generation import save_report
from inf_llm.hf.patch import new_cache
from tests.tiny import SETTINGS, tiny_model, tiny_tokenizer

PROMPT, NEW = 500, 5


def _ids(rows: int = 1, length: int = PROMPT) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(2, 200, (rows, length), generator=generator)


def _generate(model: Any, ids: torch.Tensor, **more: Any) -> torch.Tensor:
    return model.generate(
        ids, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0, **more
    )


@pytest.fixture
def model() -> Any:
    return inf_llm.patch(tiny_model(), type="inf-llm", **SETTINGS)


def test_every_layer_and_token_is_there(model: Any) -> None:
    with inf_llm.trace(model) as trace:
        _generate(model, _ids())
    assert trace.tokens == NEW
    assert trace.layers == (0, 1)
    for layer in trace.layers:
        steps = [recall for recall in trace.recalls if recall.layer == layer]
        generated = [recall for recall in steps if recall.token is not None]
        assert [(recall.first, recall.last) for recall in generated] == [
            (PROMPT - 1 + token, PROMPT + token) for token in range(NEW)
        ]
        assert all(len(recall.blocks) <= SETTINGS["topk"] for recall in steps)
        reading = [recall for recall in steps if recall.token is None]
        assert reading[-1].last == PROMPT - 1


def test_the_last_recall_is_what_the_memory_holds(model: Any) -> None:
    cache = new_cache(model)
    with inf_llm.trace(model) as trace:
        _generate(model, _ids(), past_key_values=cache)
    for number, layer in enumerate(cache.memories):
        recalled = layer.rows.members[0].recalled
        last = [recall for recall in trace.recalls if recall.layer == number][-1]
        assert list(last.blocks) == recalled.blocks[0, 0].tolist()
        assert last.scores == pytest.approx(recalled.scores[0, 0].tolist())


def test_spans_are_the_tokens_of_the_blocks(model: Any) -> None:
    """The keys of a recalled block are those that the layer had at the span."""
    ids = _ids()
    cache = new_cache(model)
    with inf_llm.trace(model) as trace:
        _generate(model, ids, past_key_values=cache)
    layer = cache.memories[0]
    last = [recall for recall in trace.recalls if recall.layer == 0][-1]
    attention = model.model.layers[0].self_attn
    hidden = model.model.layers[0].input_layernorm(model.model.embed_tokens(ids))
    keys = attention.k_proj(hidden).unflatten(-1, (2, -1)).transpose(1, 2)
    expected = torch.cat([keys[:, :, start:end] for start, end in last.spans], 2)
    torch.testing.assert_close(layer.rows.members[0].recalled.k, expected)


def test_with_heads_of_their_own(model: Any) -> None:
    inf_llm.unpatch(model)
    inf_llm.patch(model, type="inf-llm", perhead=True, **SETTINGS)
    with inf_llm.trace(model) as trace:
        _generate(model, _ids())
    heads = {recall.head for recall in trace.recalls}
    assert heads == {0, 1, 2, 3}


def test_padded_rows_have_their_own_positions(model: Any) -> None:
    """A row of a padded batch is told as it would be alone."""
    ids, pad = _ids(2), 90
    mask = torch.ones_like(ids)
    mask[1, :pad] = 0
    with inf_llm.trace(model) as both:
        _generate(model, ids, attention_mask=mask)
    with inf_llm.trace(model) as alone:
        _generate(model, ids[1:, pad:])
    theirs = [(r.layer, r.first, r.token, r.blocks) for r in both.recalls if r.row == 1]
    own = [(r.layer, r.first, r.token, r.blocks) for r in alone.recalls]
    assert [told for told in theirs if told[2] == 0] == [told for told in own if told[2] == 0]
    assert {told[1] for told in theirs if told[2] is not None} == set(
        range(PROMPT - pad - 1, PROMPT - pad - 1 + NEW)
    )


def test_passages_are_ranked_and_readable(model: Any) -> None:
    ids = _ids()
    with inf_llm.trace(model, prompts=False) as trace:
        _generate(model, ids)
    assert all(recall.token is not None for recall in trace.recalls)
    passages = trace.passages()
    assert [p.score for p in passages] == sorted((p.score for p in passages), reverse=True)
    assert sum(p.count for p in passages) == sum(len(r.blocks) for r in trace.recalls)
    assert 0 < passages[0].score <= 1
    only = trace.passages(layer=1, token=2)
    assert [p.layers for p in only] == [(1,)] * SETTINGS["topk"]
    assert only[0].score == 1.0


def test_a_trace_sees_only_its_own_thread_and_model(model: Any) -> None:
    other = inf_llm.patch(tiny_model(), type="inf-llm", **SETTINGS)
    with inf_llm.trace(model) as trace:
        _generate(other, _ids())
        thread = threading.Thread(target=_generate, args=(model, _ids()))
        thread.start()
        thread.join()
        assert not trace.recalls
        with inf_llm.trace(other) as inner:
            _generate(other, _ids())
            _generate(model, _ids(length=300))
    assert inner.tokens == trace.tokens == NEW
    assert max(recall.last for recall in trace.recalls) == 300 + NEW - 1
    assert not running.get().observers


def test_an_answer_is_the_same_with_and_without(model: Any) -> None:
    plain = _generate(model, _ids())
    with inf_llm.trace(model):
        assert torch.equal(_generate(model, _ids()), plain)


def test_models_that_recall_nothing_are_refused(model: Any) -> None:
    inf_llm.unpatch(model)
    with pytest.raises(UnsupportedModelError, match="not patched"):
        inf_llm.trace(model)
    inf_llm.patch(model, type="stream-lm", n_init=4, n_local=32)
    with pytest.raises(UnsupportedModelError, match="stream-lm"):
        inf_llm.trace(model)


def test_a_report_needs_nothing_else_and_runs_nothing_of_the_text(
    model: Any, tmp_path: Path
) -> None:
    tokenizer = tiny_tokenizer()
    text = "</script><script>alert(1)</script>&<!--\u2028 " * 12
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with inf_llm.trace(model, prompts=False) as trace:
        out = _generate(model, ids)
    file = tmp_path / "out.html"
    save_report(
        trace, out[0].tolist(), tokenizer, file, prompt_tokens=ids.shape[1], title="<b>run</b>"
    )
    html = file.read_text(encoding="utf-8")
    assert html.count("<script") == html.count("</script>") == 1
    assert "alert(1)" in html
    assert "http:" not in html
    assert "https:" not in html
    data = json.loads(re.search(r"const data = (\{.*?\});\nconst", html, re.DOTALL)[1])
    assert len(data["words"]) == NEW
    assert data["layers"] == [0, 1]
    assert len(data["steps"]) == 2 * NEW
    assert {block for step in data["steps"] for block in step[2]} == {
        block for passage in data["passages"] for block in passage["blocks"]
    }
    for passage in data["passages"]:
        before, shown, _ = passage["texts"]
        assert before + shown in text
        assert passage["start"] == trace.span(passage["blocks"][0])[0]
        assert passage["end"] == trace.span(passage["blocks"][-1])[1]
        block = text.encode()[passage["start"] : passage["end"]].decode(errors="ignore")
        assert block.strip()[:9] in shown


def test_a_report_where_nothing_was_recalled(model: Any, tmp_path: Path) -> None:
    ids = _ids(length=40)
    with inf_llm.trace(model) as trace:
        out = _generate(model, ids)
    file = tmp_path / "out.html"
    save_report(trace, out[0].tolist(), tiny_tokenizer(), file, prompt_tokens=40)
    assert '"steps":[]' in file.read_text(encoding="utf-8")
    with pytest.raises(TextError, match="cannot be written"):
        save_report(trace, [], tiny_tokenizer(), tmp_path, prompt_tokens=0)
