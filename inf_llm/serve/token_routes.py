"""The routes /tokenize and /detokenize, in the format of vLLM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from inf_llm.serve.admission import client_of
from inf_llm.serve.documents import Sources
from inf_llm.serve.errors import bad_value
from inf_llm.serve.intake import Intake
from inf_llm.serve.messages import CONTINUING, continues, messages_of
from inf_llm.serve.params import prompt_of
from inf_llm.serve.prompts import Prompt, Prompts
from inf_llm.serve.values import flag, wrong
from inf_llm.serve.vendors import check_names
from inf_llm.serve.wire import Json, json_object

_TOKENIZE = {"model", "prompt", "messages", "add_special_tokens", "return_token_strs", *CONTINUING}


class TokenRoutes:
    """The routes /tokenize and /detokenize.

    Args:
        intake: runs the tokenizer.
        request_bytes: most bytes of a request body.
        check_model: raises `ApiError` unless the server has a model of this name.
    """

    def __init__(
        self, intake: Intake, request_bytes: int, check_model: Callable[[str], None]
    ) -> None:
        self._intake, self._request_bytes = intake, request_bytes
        self._check_model = check_model

    async def tokenize(self, request: Request) -> Response:
        """Respond with the tokens of a prompt or a conversation."""
        data = await self._body(request, _TOKENIZE)
        named = flag(data, "return_token_strs")

        def work(prompts: Prompts) -> tuple[list[int], list[str]]:
            ids = _laid_out(data, prompts).ids.tolist()
            return ids, prompts.names_of(ids) if named else []

        ids, names = await self._intake.tokens(client_of(request.scope), _length(data), work)
        body = {"count": len(ids), "max_model_len": self._intake.most_tokens, "tokens": ids}
        return Json(body | ({"token_strs": names} if named else {}))

    async def detokenize(self, request: Request) -> Response:
        """Respond with the text of token ids."""
        data = await self._body(request, {"model", "tokens"})
        given = data.get("tokens")
        if not isinstance(given, list) or not all(type(token) is int for token in given):
            raise wrong("tokens", given, "a list of token ids")
        client, length = client_of(request.scope), len(given)
        text = await self._intake.tokens(client, length, lambda prompts: prompts.text_of(given))
        return Json({"prompt": text})

    async def _body(self, request: Request, names: set[str]) -> dict[str, Any]:
        data = await json_object(request, self._request_bytes)
        check_names(data, names)
        model = data.get("model")
        if model is not None:
            self._check_model(model if isinstance(model, str) else str(model))
        return data


def _laid_out(data: dict[str, Any], prompts: Prompts) -> Prompt:
    if data.get("messages") is None:
        special = data.get("add_special_tokens")
        prompt = prompt_of("prompt", data.get("prompt"))
        flag(data, "add_special_tokens")
        return prompts.of_text(prompt, Sources(()), special is not False)
    if data.get("prompt") is not None:
        raise bad_value("prompt", "prompt and messages exclude each other")
    messages = messages_of(data)
    return prompts.of_chat(messages, Sources(()), continues(data, messages))


def _length(data: dict[str, Any]) -> int:
    """Return roughly the number of characters to tokenize."""
    given = data.get("prompt") or data.get("messages")
    if isinstance(given, list):
        return sum(len(str(each.get("content"))) if isinstance(each, dict) else 1 for each in given)
    return len(given) if isinstance(given, str) else 0
