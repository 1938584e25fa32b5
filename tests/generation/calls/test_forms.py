"""Every row of the table: what its grammar lets through, its reader takes for the same calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

pytest.importorskip("llguidance", reason="needs the extra 'structured'")

from inf_llm.errors import SettingsError
from inf_llm.generation.calls import CallReader, Tool, form_of
from inf_llm.generation.grammar import Grammars
from inf_llm.variants import CALLS
from tests.tiny import tiny_tokenizer

NODE: dict[str, Any] = {
    "type": "object",
    "properties": {"of": {"$ref": "#/$defs/kind"}, "much": {"type": "integer", "maximum": 99}},
    "required": ["of"],
    "$defs": {"kind": {"enum": ["a", "b"]}},
}
TOOLS = (
    Tool("count-it", 'Says "how many".', NODE),
    Tool("stop_it", "", {"type": "object", "properties": {}}),
)
TEMPLATES = {
    "hermes": "...\n<tool_call>\n{...",
    "mistral": "{{ '[TOOL_CALLS]' }}",
    "llama": 'Respond in the format {"name": function name, "parameters": dictionary}',
    "bare": "<functions>{{ tools }}</functions>",
}


def written(form: str, several: bool, seed: int) -> str:
    tokenizer = tiny_tokenizer()
    grammars = Grammars(tokenizer, len(tokenizer), [tokenizer.eos_token_id])
    rules = form_of(None, form).rules(TOOLS, several, grammars.lark_piece)
    constraint = grammars.of_lark(f"start: calls\n{rules}").constraint(0, 5000)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.empty(1, 0, dtype=torch.int64)
    while not constraint.over(ids, None).item() and ids.shape[1] < 3000:
        scores = constraint(ids, torch.randn(1, len(tokenizer), generator=generator))
        ids = torch.cat((ids, torch.multinomial(scores.softmax(-1), 1, generator=generator)), 1)
    return str(tokenizer.decode(ids[0], skip_special_tokens=True))


@pytest.mark.parametrize("form", CALLS.own)
def test_what_is_enforced_is_read(form: str) -> None:
    counts = set()
    for seed in range(8):
        text = written(form, several=True, seed=seed)
        reader = CallReader(form_of(None, form), [tool.name for tool in TOOLS])
        assert reader.put(text) == ""
        words, calls = reader.end()
        assert words == "", text
        assert calls, text
        counts.add(len(calls))
        for call in calls:
            arguments = json.loads(call.arguments)
            if call.name == "count-it":
                assert arguments["of"] in ("a", "b")
                assert arguments.keys() <= {"of", "much"}
            else:
                assert arguments == {}
    assert max(counts) > 1 or not form_of(None, form).several


@pytest.mark.parametrize("form", CALLS.own)
def test_one_call_where_one_is_wanted(form: str) -> None:
    for seed in range(4):
        reader = CallReader(form_of(None, form), [tool.name for tool in TOOLS])
        reader.put(written(form, several=False, seed=seed))
        assert len(reader.end()[1]) == 1


@pytest.mark.parametrize(("form", "template"), TEMPLATES.items())
def test_the_template_says_which(form: str, template: str) -> None:
    assert type(form_of(template)) is CALLS.get(form)
    assert TEMPLATES.keys() == set(CALLS.own)


def test_no_template_and_unknown_names() -> None:
    assert type(form_of(None)) is CALLS.get("bare")
    with pytest.raises(SettingsError, match="did you mean 'hermes'"):
        form_of(None, "herms")
