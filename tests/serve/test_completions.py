"""Answers in the forms that OpenAI gave them, whole and streamed, and clients that leave."""

from __future__ import annotations

import openai
import pytest

from tests.serve.conftest import Server
from tests.serve.talk import STORY, ask, metric, until


def test_streaming_says_the_same(server: Server) -> None:
    whole = ask(server, STORY + "a")
    stream = ask(server, STORY + "a", stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[0].choices[0].delta.role == "assistant"


def test_completions_of_text_and_of_tokens(server: Server) -> None:
    client = server.client()
    whole = client.completions.create(model=server.model, prompt="Once upon", max_tokens=5)
    assert whole.usage.prompt_tokens == len("Once upon")
    parts = client.completions.create(
        model=server.model, prompt=["Once upon"], max_tokens=5, stream=True
    )
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    ids = client.completions.create(model=server.model, prompt=[5, 6, 7], max_tokens=2)
    assert ids.usage.prompt_tokens == 3
    with pytest.raises(openai.BadRequestError, match="ids from 0 to"):
        client.completions.create(model=server.model, prompt=[10**6])


def test_a_client_that_goes_away_stops_its_answer(server: Server) -> None:
    generated = metric(server, "generated_tokens_total")
    stream = ask(server, "Say much", max_tokens=100_000, stream=True)
    next(iter(stream))
    until(lambda: metric(server, "jobs_running") == 1)
    stream.close()
    until(lambda: metric(server, "jobs_running") == 0)
    assert metric(server, "generated_tokens_total") == generated
    assert ask(server, "Still there?").choices


def test_a_client_that_goes_away_without_streaming(server: Server) -> None:
    with pytest.raises(openai.APITimeoutError):
        server.client(timeout=1.0).chat.completions.create(
            model=server.model,
            messages=[{"role": "user", "content": "Say much"}],
            max_tokens=100_000,
        )
    until(lambda: metric(server, "jobs_running") == 0)


def test_a_prompt_of_a_megabyte(server: Server) -> None:
    text = "A long way. " * (1_000_000 // 12)
    stream = ask(server, text, max_tokens=2, stream=True)
    next(iter(stream))  # it is accepted and begun; the tiny tokenizer makes a token of every byte
    stream.close()
    until(lambda: metric(server, "jobs_running") == 0)
