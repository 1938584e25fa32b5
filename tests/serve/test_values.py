"""Values of parameters: what a refusal says of them."""

from __future__ import annotations

from typing import Any

import pytest

from inf_llm.serve.errors import ApiError
from inf_llm.serve.values import flag, number, shown, whole
from tests.serve.questions import ODD


@pytest.mark.parametrize("value", [*(odd for odd in ODD if odd is not True), 10**400, "x" * 1000])
def test_a_refusal_shows_the_value_and_what_is_accepted(value: Any) -> None:
    for check, wanted in (
        (lambda: whole("a", value, 2, 9), "a whole number from 2 to 9"),
        (lambda: number("a", value, 0.0, 2, 9), "a number from 2 to 9"),
        (lambda: flag({"a": value}, "a"), "true or false"),
    ):
        with pytest.raises(ApiError) as caught:
            check()
        assert caught.value.message == f"a = {shown(value)} is not accepted: give {wanted}"
        assert len(caught.value.message) < 140
        assert caught.value.param == "a"


def test_a_value_is_shown_as_json_has_it() -> None:
    assert [shown(value) for value in (True, None, 1.5, "é", [], {"a": 1}, [1])] == [
        *("true", "null", "1.5", '"é"', "[]", "{...}", "[...]")
    ]
