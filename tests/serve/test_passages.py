"""Passages that are listed with an answer."""

from __future__ import annotations

from tests.serve.conftest import Server
from tests.serve.talk import STORY, ask


def test_recalled_passages_are_listed(server: Server) -> None:
    answer = ask(server, STORY, extra_body={"recall": True})
    passages = answer.model_extra["recalled"]
    assert passages
    assert [p["score"] for p in passages] == sorted((p["score"] for p in passages), reverse=True)
    for passage in passages:
        assert passage["text"] == STORY[passage["start"] : passage["end"]]
