"""Bodies of requests, values that suit no parameter, and how a refusal is read."""

from __future__ import annotations

from typing import Any

import pytest

from inf_llm.serve.errors import ApiError
from inf_llm.serve.params import chat_question

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
TEXT = {"model": "m", "prompt": "hello"}
PLAIN = chat_question(CHAT)
ODD: tuple[Any, ...] = (True, "x", 0.5, -7, [1], {"a": [None]}, "\ud800")


def refused(body: dict[str, Any], **more: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        chat_question(CHAT | body, **more)
    assert caught.value.status == 400
    return caught.value
