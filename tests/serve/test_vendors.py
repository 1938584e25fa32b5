"""Parameters of other servers: none is refused that asks for nothing, and no other is ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inf_llm.serve.errors import ApiError
from inf_llm.serve.params import CHAT_ONLY, chat_question, completion_question
from inf_llm.serve.vendors import HARMLESS, INSTEAD, NEUTRAL, REASONING
from tests.serve.questions import CHAT, ODD, PLAIN, TEXT, refused


@pytest.mark.parametrize("name", sorted(NEUTRAL | REASONING))
def test_values_that_ask_for_nothing_pass_and_others_are_refused_by_name(name: str) -> None:
    values = (NEUTRAL | REASONING)[name]

    def ask(body: dict[str, Any]) -> Any:
        """A completion, where a chat takes the name itself."""
        if name in CHAT_ONLY:
            return completion_question(TEXT | body)
        return chat_question(CHAT | body)

    for value in (*values, None):
        assert chat_question(CHAT | {name: value}) == PLAIN
        assert completion_question(TEXT | {name: value}).sampling == PLAIN.sampling
    for value in ODD:
        if json.dumps(value) not in map(json.dumps, values):
            with pytest.raises(ApiError) as caught:
                ask({name: value})
            error = caught.value
            assert error.param == name
            assert error.message.startswith(name)
            assert "leave it out" in error.message


@pytest.mark.parametrize("value", [*ODD, None, {}, 1e300], ids=repr)
def test_what_cannot_change_an_answer_is_ignored(value: Any) -> None:
    assert chat_question(CHAT | dict.fromkeys(HARMLESS, value)) == PLAIN


def test_no_name_stands_in_two_tables() -> None:
    assert not HARMLESS & NEUTRAL.keys()
    assert not HARMLESS & REASONING.keys()
    assert NEUTRAL.keys() & REASONING.keys() <= {"chat_template_kwargs"}  # {}, or its switch
    assert INSTEAD.keys() <= NEUTRAL.keys()


@pytest.mark.parametrize("name", sorted(REASONING))
def test_a_model_that_can_reason_does_what_its_template_says(name: str) -> None:
    """Where the template has a switch, a wish to set it is no wish for nothing."""
    assert chat_question(CHAT | {name: None}, thinks=True) == PLAIN
    for value in REASONING[name]:
        assert refused({name: value}, thinks=True).param == name
