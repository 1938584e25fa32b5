"""The JSON of a request for answers as checked values.

A parameter is used, ignored because it cannot change the answer, or refused. No parameter silently
loses its effect. `vendors` lists the ignored parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from inf_llm.checks import check_question, check_text
from inf_llm.generation.layout import Message
from inf_llm.serve.answer_format import schema_of
from inf_llm.serve.errors import bad_value
from inf_llm.serve.logprobs import MAX_TOP
from inf_llm.serve.messages import CONTINUING, continues, messages_of
from inf_llm.serve.sampling import NAMES, Sampling, sampling_of
from inf_llm.serve.tools import NO_FUNCTIONS, Calling, calling
from inf_llm.serve.values import check_fields, checked_text, flag, shown, whole, wrong
from inf_llm.serve.vendors import check_names

SHARED = {
    *("model", "n", *NAMES, "stream", "stream_options"),
    *("document", "documents", "recall", "response_format"),
}
CHAT_ONLY = {
    *("messages", "max_completion_tokens", "logprobs", "top_logprobs"),
    *("tools", "tool_choice", "parallel_tool_calls", *CONTINUING),
}
TEXT_ONLY = {"prompt", "logprobs", "echo"}
_STREAM_OPTIONS = {"include_usage", "include_obfuscation"}
MAX_ANSWERS = 16
"""Most answers of one request, which has `n` answers to each of its prompts."""

PromptText = str | tuple[int, ...]
"""A prompt without chat messages: a text, or token ids."""


@dataclass(frozen=True)
class Question:
    """A request for answers.

    Attributes:
        model: the requested model name.
        messages: messages of a chat; empty for a completion.
        prompts: prompts of a completion; empty for a chat.
        n: number of answers to each prompt.
        sampling: sampling parameters of the answers.
        stream: send the answers piece by piece.
        include_usage: end a stream with the token counts.
        documents: ids of uploaded texts to answer from.
        recall: list the passages that were recalled.
        logprobs: number of likeliest tokens to report beside each token; None for no report.
        echo: repeat the prompt before the answer.
        continues: the answer continues the last message, which is the assistant's.
        functions: functions that the model may call.
        schema: JSON schema that the answers must fit; None for any text.

    Raises:
        ApiError: `continues` is combined with a schema or a forced call.
    """

    model: str
    messages: tuple[Message, ...]
    prompts: tuple[PromptText, ...]
    n: int
    sampling: Sampling
    stream: bool
    include_usage: bool
    documents: tuple[str, ...]
    recall: bool
    logprobs: int | None = None
    echo: bool = False
    continues: bool = False
    functions: Calling = NO_FUNCTIONS
    schema: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.continues and (self.schema is not None or self.functions.forced):
            raise bad_value(
                CONTINUING[1],
                "an answer of a form that is asked for cannot go on with the last message, which "
                "is the assistant's: end with a message of the user, or send "
                "add_generation_prompt = true",
            )

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-likelihoods of prompt tokens are reported."""
        return self.echo and self.logprobs is not None

    @property
    def memories(self) -> int:
        """Memories that one prompt needs at once: one per answer, and one to score its end."""
        return self.n + self.scores_prompt

    @property
    def answers(self) -> int:
        """Number of answers to all prompts of the request."""
        return self.n * max(1, len(self.prompts))


def chat_question(
    data: dict[str, Any], thinks: bool = False, names: Sequence[str] | None = None
) -> Question:
    """Parse the body of a request to /v1/chat/completions.

    Args:
        data: the body.
        thinks: whether the model's chat template has a switch for reasoning.
        names: see `messages_of`.

    Raises:
        ApiError: the body has a parameter or a value that is not accepted.
    """
    check_names(data, SHARED | CHAT_ONLY, thinks)
    messages, functions = messages_of(data, names), calling(data)
    question = _question(data, messages, (), _chat_logprobs(data), functions=functions)
    return replace(question, continues=continues(data, messages))


def completion_question(data: dict[str, Any]) -> Question:
    """Parse the body of a request to /v1/completions."""
    check_names(data, SHARED | TEXT_ONLY)
    prompts = _prompts(data.get("prompt"))
    given = data.get("logprobs")  # a number here; false, as in chats, means no report
    logprobs = None if given is False else whole("logprobs", given, 0, MAX_TOP)
    question = _question(data, (), prompts, logprobs, flag(data, "echo"))
    if question.documents and not all(isinstance(prompt, str) for prompt in prompts):
        raise bad_value("prompt", "prompt must be a text where it is about a document")
    return question


def _prompts(given: Any) -> tuple[PromptText, ...]:
    """Parse one prompt or several: a text, or a list of texts, token ids, or token id lists."""
    if given is None:
        raise bad_value("prompt", "prompt is missing: a text or a list of token ids is needed")
    several = isinstance(given, list) and given and isinstance(given[0], str | list)
    if not several:
        return (prompt_of("prompt", given),)
    if len(given) == 1:
        return (prompt_of("prompt", given[0]),)
    return tuple(prompt_of(f"prompt[{index}]", prompt) for index, prompt in enumerate(given))


def prompt_of(where: str, given: Any) -> PromptText:
    """Parse a prompt without chat messages.

    Raises:
        ApiError: the value is neither a text nor token ids.
    """
    if isinstance(given, str):
        return checked_text(where, given, check_question if given else check_text)
    if isinstance(given, list) and given and all(type(token) is int for token in given):
        return tuple(given)
    raise wrong(where, given, "a text or a list of token ids, or a list of such prompts")


def _chat_logprobs(data: dict[str, Any]) -> int | None:
    top = whole("top_logprobs", data.get("top_logprobs"), 0, MAX_TOP)
    if flag(data, "logprobs"):
        return top or 0
    if top:
        raise bad_value("top_logprobs", f"top_logprobs = {top} needs logprobs = true beside it")
    return None


def _question(
    data: dict[str, Any],
    messages: tuple[Message, ...],
    prompts: tuple[PromptText, ...],
    logprobs: int | None = None,
    echo: bool = False,
    functions: Calling = NO_FUNCTIONS,
) -> Question:
    model = data.get("model")
    if not isinstance(model, str) or not model:
        given = "missing" if model is None else shown(model)
        message = f"model is {given}: the name of a model is needed, as /v1/models lists it"
        raise bad_value("model", message)
    question = Question(
        model,
        messages,
        prompts,
        whole("n", data.get("n"), 1, MAX_ANSWERS) or 1,
        sampling_of(data, shortest=0 if echo else 1),
        flag(data, "stream"),
        _usage_wanted(data.get("stream_options")),
        _documents(data),
        flag(data, "recall"),
        logprobs,
        echo,
        functions=functions,
        schema=schema_of(data.get("response_format")),
    )
    _check_answers(question)
    return question


def _check_answers(question: Question) -> None:
    """Check that there are at most `MAX_ANSWERS` answers, and only one with `recall`."""
    if question.answers > MAX_ANSWERS:
        prompts = f" to each of {len(question.prompts)} prompts" if question.prompts else ""
        raise bad_value(
            "n" if question.n > 1 else "prompt",
            f"n = {question.n}{prompts} makes {question.answers} answers: a request may have "
            f"{MAX_ANSWERS}",
        )
    if question.recall and question.answers > 1:
        raise bad_value(
            "recall",
            f"recall = true is for one answer, and this request has {question.answers}: ask for "
            "them one by one, or leave recall out",
        )


def _documents(data: dict[str, Any]) -> tuple[str, ...]:
    one, several = data.get("document"), data.get("documents")
    if one is not None and not isinstance(one, str):
        raise wrong("document", one, "the id of an uploaded document")
    several = [] if several is None else several
    if not isinstance(several, list) or not all(isinstance(name, str) for name in several):
        raise wrong("documents", several, "a list of ids of uploaded documents")
    names = [*([] if one is None else [one]), *several]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise bad_value("documents", f"documents has {shown(twice)} twice: give different ones")
    return tuple(names)


def _usage_wanted(options: Any) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict):
        raise wrong("stream_options", options, 'an object, as {"include_usage": true}')
    check_fields("stream_options", options, _STREAM_OPTIONS)
    return flag(options, "include_usage")
