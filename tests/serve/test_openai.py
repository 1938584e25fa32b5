"""The official client against a running server: what it asks, what goes wrong, who leaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.serve.conftest import Server
from tests.serve.talk import STORY, ask


def test_several_turns_read_only_what_is_new(server: Server) -> None:
    messages = [{"role": "user", "content": "Turns. " + STORY}]
    for turn in range(4):
        answer = server.client().chat.completions.create(model=server.model, messages=messages)
        usage = answer.usage
        if turn:
            assert usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens < 200
        text = answer.choices[0].message.content.encode().decode(errors="replace")
        messages.append({"role": "assistant", "content": text})
        messages.append({"role": "user", "content": f"and then {turn}?"})


def test_eight_clients_at_once(server: Server) -> None:
    def talk(number: int) -> list[str]:
        texts = []
        for question in ("one", "two"):
            prompt = f"{number} " * 300 + question
            texts.append(ask(server, prompt, max_tokens=6).choices[0].message.content)
        return texts

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(talk, range(8)))
    assert together == [talk(number) for number in range(8)]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"n": 2, "extra_body": {"recall": True}}, "recall"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"extra_body": {"guided_json": {"type": "object"}}}, "guided_json"),
        ({"extra_body": {"structured_outputs": {"json": {}}}}, "structured_outputs"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": "x"}, "seed"),
        ({"stop": ["a"] * 33}, "stop"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"logit_bias": {"1000000": 1}}, "logit_bias"),
        ({"extra_body": {"attn_impl": "x"}}, "attn_impl"),
        ({"extra_body": {"document": "../../etc/passwd"}}, "document"),
    ],
)
def test_what_it_does_not_do_is_said(server: Server, more: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(server, "hello", **more)
    assert caught.value.status_code in (400, 404)
    assert caught.value.body["param"] == param


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "wizard", "content": "x"}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///"}}]}],
        ["hello"],
    ],
)
def test_messages_that_are_none(server: Server, messages: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="messages"):
        server.client().chat.completions.create(model=server.model, messages=messages)


def test_what_asks_for_nothing_is_accepted(server: Server) -> None:
    answer = ask(server, "hi", n=1, user="me", presence_penalty=0, logprobs=False, max_tokens=1)
    assert answer.usage.completion_tokens == 1
    parts = [{"type": "text", "text": "hi"}]
    answer = server.client().chat.completions.create(
        model=server.model,
        messages=[{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}],
        max_completion_tokens=1,
    )
    assert answer.usage.completion_tokens == 1


def _texts(reply: Any) -> list[str]:
    assert [choice.index for choice in reply.choices] == list(range(len(reply.choices)))
    return [choice.message.content for choice in reply.choices]


def _streamed(chunks: Any) -> tuple[dict[int, str], dict[int, str], Any]:
    """Texts and reasons by the index of the answer, and the usage."""
    texts, reasons, usage = dict[int, str](), dict[int, str](), None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text = choice.text if hasattr(choice, "text") else choice.delta.content
            texts[choice.index] = texts.get(choice.index, "") + (text or "")
            assert choice.index not in reasons, "an answer that has ended says no more"
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    return texts, reasons, usage


def test_several_answers_are_those_of_their_seeds(server: Server) -> None:
    options = {"temperature": 1.3, "max_tokens": 9}
    alone = [ask(server, STORY, seed=5 + i, **options) for i in range(3)]
    together = ask(server, STORY, seed=5, n=3, **options)
    assert _texts(together) == [_texts(reply)[0] for reply in alone]
    assert len(set(_texts(together))) == 3
    assert together.usage.prompt_tokens == alone[0].usage.prompt_tokens
    assert together.usage.completion_tokens == 27
    stream = ask(
        server, STORY, seed=5, n=3, stream=True, stream_options={"include_usage": True}, **options
    )
    texts, reasons, usage = _streamed(stream)
    assert texts == dict(enumerate(_texts(together)))
    assert reasons == dict.fromkeys(range(3), "length")
    assert usage == together.usage.model_copy(
        update={"prompt_tokens_details": usage.prompt_tokens_details}
    )


def test_answers_end_apart(server: Server) -> None:
    """Each at its own stop text, while the others go on."""
    options = {"temperature": 1.3, "max_tokens": 24, "seed": 1, "n": 4}
    whole = _texts(ask(server, "Draw", **options))
    stop = whole[0][3]
    ended = ask(server, "Draw", stop=stop, **options)
    assert _texts(ended) == [text.partition(stop)[0] for text in whole]
    assert [c.finish_reason for c in ended.choices] == [
        "stop" if stop in text else "length" for text in whole
    ]


@pytest.mark.parametrize("prompts", [["Once", "upon a time", "x" * 300], [[5, 6, 7], [8, 9]]])
def test_several_prompts_have_the_answers_that_each_has_alone(
    server: Server, prompts: list[Any]
) -> None:
    create, options = server.client().completions.create, {"max_tokens": 5, "temperature": 1.0}
    alone = [
        choice.text
        for prompt in prompts
        for choice in create(model=server.model, prompt=prompt, n=2, seed=3, **options).choices
    ]
    together = create(model=server.model, prompt=prompts, n=2, seed=3, **options)
    assert [choice.text for choice in together.choices] == alone
    assert together.usage.prompt_tokens == sum(map(len, prompts))
    texts, reasons, _ = _streamed(
        create(model=server.model, prompt=prompts, n=2, seed=3, stream=True, **options)
    )
    assert texts == dict(enumerate(alone))
    assert len(reasons) == len(alone)


def test_too_many_answers_are_refused_with_both_figures(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match=r"n = 6 to each of 3 .*18 answers.* 16"):
        server.client().completions.create(model=server.model, prompt=["a", "b", "c"], n=6)
    with pytest.raises(openai.BadRequestError, match=r"prompt\[1\] = 5"):
        server.client().completions.create(model=server.model, prompt=["a", 5])


def test_logprobs_as_the_client_reads_them(server: Server) -> None:
    options = {"logprobs": True, "top_logprobs": 2, "n": 2, "max_tokens": 5, "temperature": 1.0}
    whole = ask(server, STORY, seed=3, **options)
    found: dict[int, list[Any]] = {0: [], 1: []}
    for chunk in ask(server, STORY, seed=3, stream=True, **options):
        for choice in chunk.choices:
            if choice.logprobs is not None:
                found[choice.index] += choice.logprobs.content
    for choice in whole.choices:
        tokens = choice.logprobs.content
        assert tokens == found[choice.index]
        assert len(tokens) == 5
        assert all(len(token.top_logprobs) == 2 for token in tokens)
        assert all(token.logprob <= token.top_logprobs[0].logprob <= 0 for token in tokens)
    echoed = server.client().completions.create(
        model=server.model, prompt="Once", echo=True, logprobs=1, max_tokens=0
    )
    (choice,) = echoed.choices
    assert (choice.text, choice.logprobs.tokens) == ("Once", list("Once"))
    assert choice.logprobs.token_logprobs[0] is None


def test_an_answer_that_has_begun_goes_on(server: Server) -> None:
    """The prompt ends with what was said; the answer has only what follows."""
    create = server.client().chat.completions.create
    messages = [{"role": "user", "content": "Tell me."}]
    whole = create(model=server.model, messages=messages, max_tokens=8)
    begun = [*messages, {"role": "assistant", "content": "Once"}]
    goes_on = create(model=server.model, messages=begun, max_tokens=8)
    assert goes_on.usage.prompt_tokens > whole.usage.prompt_tokens
    assert goes_on.choices[0].message.role == "assistant"
    with pytest.raises(openai.BadRequestError, match="needs a last message of the assistant"):
        create(model=server.model, messages=messages, extra_body={"continue_final_message": True})
