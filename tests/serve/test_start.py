"""What is known before anything is served."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from inf_llm.errors import MissingExtraError
from inf_llm.serve import require_extra
from inf_llm.serve.start import ServeOptions, build
from tests.serve.inprocess import Local, local


@pytest.mark.parametrize("module", ["uvicorn", "starlette", "prometheus_client"])
def test_a_missing_library_is_named_with_its_extra(module: str, monkeypatch: Any) -> None:
    require_extra()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{module}.*inf-llm\[serve\]"):
        require_extra()


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1", 403), ("localhost", 403), ("::1", 403), ("0.0.0.0", 200)]
)
def test_other_names_of_the_host_are_refused_on_local_addresses(host: str, status: int) -> None:
    with local(host=host) as server:
        reply = server.request("GET", "/health", headers={"host": "example.org"})
        assert reply.status_code == status


def test_a_template_with_a_switch_for_reasoning_is_noticed() -> None:
    with local() as server:
        assert server.ask(max_tokens=1, reasoning_effort="none").status_code == 200
        tokenizer = server.app.engine.tokenizer
        tokenizer.chat_template = "{{ messages[0]['content'] }}{{ enable_thinking }}"
        again = build(server.app.engine.model, tokenizer, server.app.engine.config, ServeOptions())
        reply = Local(again).ask(max_tokens=1, reasoning_effort="none")
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "reasoning_effort"
