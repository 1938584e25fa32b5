"""Conversion of messages to a prompt, shared by run, chat, the server and the benchmark."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

from inf_llm.checks import require_type
from inf_llm.conversation import ASSISTANT, BETWEEN, CONV_TYPES, PLAIN, TEMPLATES, USER
from inf_llm.errors import SettingsError, TextError, reason
from inf_llm.generation.control import as_text
from inf_llm.registry import accepted

Message = dict[str, Any]
"""A role and a content. An answer may have `tool_calls`; a message of the role `tool` may have the
`tool_call_id` and `name` of its call."""
Hide = Callable[[str], str]
"""Function applied to each text of a message before rendering: `as_text` of a tokenizer, which
masks control tokens, or `str`, which leaves the text unchanged."""

_MARK = "An example of what is said."
_NAME = "name_of_no_function"
_SHOWN = 40
"""Most characters of a message that an error shows."""


class Layout(ABC):
    """The base class of the formats of a conversation in a prompt.

    Args:
        hide: masks control tokens in message contents; see `Hide`.

    Attributes:
        name: name of the layout in error messages.
        roles: names of user and assistant.
        adds_special: whether special tokens must be added when the prompt is encoded.
        stops: texts that end an answer.
        ends: ids of tokens that end an answer, besides those of the model.
        takes_tools: whether the prompt describes the functions that may be called.
        template: chat template in the form of tokenizers; None if the layout has none.
    """

    name: str
    roles = ("USER", "ASSISTANT")
    adds_special = False
    stops: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()
    takes_tools = False
    template: str | None = None

    def __init__(self, hide: Hide = str) -> None:
        self.hide = hide

    def prompt(
        self,
        messages: Sequence[Message],
        continued: bool = False,
        tools: Sequence[dict[str, Any]] = (),
    ) -> str:
        """Return the prompt up to the beginning of the answer, to be encoded with `encode`.

        Args:
            messages: the conversation.
            continued: whether the answer continues the last message, whose turn stays open.
            tools: functions that may be called, in OpenAI's form, if the layout `takes_tools`.

        Raises:
            TextError: the template refuses these messages, or leaves one of them out.
        """
        hidden = [self._hidden(message) for message in messages]
        text = self._laid_out(hidden, not continued, self._hidden(list(tools)))
        kept = self._turns_kept(messages)
        for message, given, is_kept in zip(messages, hidden, kept, strict=True):
            # earlier answers may be shortened: templates of reasoning models drop the reasoning
            lost = message["role"] != ASSISTANT and not _stands(given["content"].strip(), text)
            if lost or not is_kept:
                content = message["content"].strip()
                shown = content if len(content) <= _SHOWN else content[:_SHOWN] + "..."
                raise TextError(
                    f"{self.name} leaves out what the {message['role']} says ({shown!r}): choose "
                    f"another layout with conv_type, one of {', '.join(CONV_TYPES)}"
                )
        return self._open(text, hidden[-1]["content"]) if continued else text

    def _open(self, text: str, last: str) -> str:
        """Return a prompt without the text after its last message."""
        for content in (last, last.rstrip(), last.strip()):
            start = text.rfind(content)
            if start >= 0:
                return text[: start + len(content)]
        raise TextError(f"{self.name} changes the last message, so that it cannot be continued")

    def _hidden(self, value: Any) -> Any:
        """Return a value with `hide` applied to all its texts, the keys of dicts included."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, dict):
            return {self.hide(name): self._hidden(inner) for name, inner in value.items()}
        return [self._hidden(inner) for inner in value] if isinstance(value, list) else value

    def _turns_kept(self, messages: Sequence[Message]) -> list[bool]:
        """Return for each turn whether the layout writes its content.

        The check renders unique marker texts, because the real content may also occur in another
        turn or in the template. If the template refuses the markers, all turns count as kept. A
        turn with calls counts as kept too: templates may leave out the text beside calls.
        """
        marks = [f"-said{turn}-" for turn in range(len(messages))]
        turns = [{**m, "content": mark} for m, mark in zip(messages, marks, strict=True)]
        try:
            text = self._laid_out(turns, True)
        except TextError:
            return [True] * len(turns)
        return [mark in text or "tool_calls" in m for m, mark in zip(messages, marks, strict=True)]

    @abstractmethod
    def _laid_out(
        self, messages: Sequence[Message], invites: bool, tools: Sequence[dict[str, Any]] = ()
    ) -> str:
        """Return the rendered conversation, without a check that all messages are in it.

        Args:
            messages: the conversation.
            invites: whether the turn of an answer begins at the end.
            tools: see `prompt`.
        """


class PlainLayout(Layout):
    """The unchanged message contents, separated by empty lines."""

    name = "nothing (plain text; --conv-template picks a template)"
    adds_special = True

    def _laid_out(
        self, messages: Sequence[Message], invites: bool, tools: Sequence[dict[str, Any]] = ()
    ) -> str:
        return BETWEEN.join(message["content"] for message in messages)


class TemplateLayout(Layout):
    """A layout with a chat template in the form of tokenizers.

    Args:
        tokenizer: tokenizer that renders the template.
        template: the template.
        name: name of the layout in error messages.
        hide: see `Layout`.
    """

    def __init__(self, tokenizer: Any, template: str, name: str, hide: Hide = str) -> None:
        super().__init__(hide)
        self.name = name
        self._tokenizer, self.template = tokenizer, template

    def _laid_out(
        self, messages: Sequence[Message], invites: bool, tools: Sequence[dict[str, Any]] = ()
    ) -> str:
        more = {"tools": list(tools)} if tools else {}
        return self._render(messages, self._form, add_generation_prompt=invites, **more)

    def _render(self, messages: Sequence[Message], form: _Form, **more: Any) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                [{**message, "content": form(message["content"])} for message in messages],
                chat_template=self.template,
                tokenize=False,
                **more,
            )
        except Exception as error:  # a template may raise any exception
            raise TextError(
                f"{self.name} does not take this conversation: {reason(error)}"
            ) from None
        return str(text)

    @cached_property
    def takes_tools(self) -> bool:  # type: ignore[override]
        """Whether the template writes the functions that may be called, tested with an example."""
        function = {"name": _NAME, "description": _MARK, "parameters": {"type": "object"}}
        message = {"role": USER, "content": _MARK}
        try:
            return _NAME in self._laid_out(
                [message], True, [{"type": "function", "function": function}]
            )
        except TextError:
            return False

    @cached_property
    def _form(self) -> _Form:
        """Function that converts a content to the template's type: a text or a list of parts."""
        for form in _FORMS:
            text = self._example(form, {"role": USER})
            if _MARK in text and repr(_MARK) not in text:  # `repr`: the list printed as a text
                return form
        return _FORMS[0]

    def _example(self, form: _Form, *turns: Message) -> str:
        """Render turns that all have the same example content; "" if the template refuses them."""
        try:
            messages = [{**turn, "content": _MARK} for turn in turns]
            return self._render(messages, form, add_generation_prompt=False)
        except TextError:
            return ""

    @cached_property
    def ends(self) -> tuple[int, ...]:  # type: ignore[override]
        """Id of the special token that the template writes after an answer; empty if none."""
        text = self._example(self._form, {"role": USER}, {"role": ASSISTANT})
        after = text.rpartition(_MARK)[2].lstrip()
        special = self._tokenizer.get_added_vocab()
        special |= dict(
            zip(self._tokenizer.all_special_tokens, self._tokenizer.all_special_ids, strict=True)
        )
        return tuple(index for token, index in special.items() if token and after.startswith(token))


_Form = Callable[[str], Any]
_FORMS: tuple[_Form, ...] = (str, lambda text: [{"type": "text", "text": text}])


class FastChatLayout(Layout):
    """A layout with one of FastChat's conversation templates.

    Args:
        name: name of the template in FastChat.
        hide: see `Layout`.
    """

    adds_special = True

    def __init__(self, name: str, hide: Hide = str) -> None:
        super().__init__(hide)
        from fastchat.conversation import get_conv_template

        self.name = f"FastChat's template {name!r}"
        self._blank = get_conv_template(name)
        self.roles = tuple(self._blank.roles)
        stops = self._blank.stop_str or ()
        self.stops = (stops,) if isinstance(stops, str) else tuple(stops)
        self.ends = tuple(self._blank.stop_token_ids or ())

    def _laid_out(
        self, messages: Sequence[Message], invites: bool, tools: Sequence[dict[str, Any]] = ()
    ) -> str:
        conversation = self._blank.copy()
        for message in messages:
            role = self.roles[message["role"] == ASSISTANT]
            conversation.append_message(role, message["content"])
        if invites:
            conversation.append_message(self.roles[1], None)
        return str(conversation.get_prompt())


def _stands(content: str, text: str) -> bool:
    """Return whether a text contains a content, as it is or as a JSON string.

    Some templates write the results of calls as JSON.
    """
    return content in text or json.dumps(content, ensure_ascii=False)[1:-1] in text


def choose_layout(
    tokenizer: Any, conv_type: str | None = None, control_tokens: bool = False
) -> Layout:
    """Return the layout of a name; without a name that of the tokenizer, or else plain text.

    Args:
        tokenizer: the tokenizer of the model.
        conv_type: one of `CONV_TYPES`, or the name of a FastChat template.
        control_tokens: whether text such as "<|im_end|>" in a content is encoded as a control
            token; otherwise it is ordinary text.

    Raises:
        SettingsError: there is no template of this name, or the tokenizer has several templates
            and no default.
    """
    require_type("conv_type", conv_type, str, optional=True)
    hide: Hide = str if control_tokens else partial(as_text, tokenizer)
    if conv_type is None:
        template = own_template(tokenizer)
        if template:
            return TemplateLayout(tokenizer, template, "the tokenizer's template", hide)
    if conv_type in (None, PLAIN):
        return PlainLayout(hide)
    if conv_type in TEMPLATES:
        return TemplateLayout(tokenizer, TEMPLATES[conv_type], f"template {conv_type!r}", hide)
    try:
        from fastchat.conversation import conv_templates
    except ImportError:
        raise SettingsError(
            f"conversation template {conv_type!r} is not known here; "
            f"{accepted(conv_type, CONV_TYPES)}. FastChat has more: pip install 'inf-llm[chat]'",
            "conv_type",
        ) from None
    if conv_type not in conv_templates:
        known = accepted(conv_type, (*CONV_TYPES, *conv_templates))
        raise SettingsError(f"conversation template {conv_type!r} is not known; {known}")
    return FastChatLayout(conv_type, hide)


def own_template(tokenizer: Any) -> str | None:
    """Return the chat template of a tokenizer, or the one named "default" of several.

    None if the tokenizer has no chat template.

    Raises:
        SettingsError: there are several and none is named "default", or the template is not text.
    """
    chat_template = getattr(tokenizer, "chat_template", None)
    if isinstance(chat_template, list):  # the form of tokenizer_config.json
        chat_template = {
            row.get("name"): row.get("template") for row in chat_template if isinstance(row, dict)
        }
    template = chat_template.get("default") if isinstance(chat_template, dict) else chat_template
    if chat_template and not isinstance(template, str):
        names = ", ".join(map(str, chat_template)) if isinstance(chat_template, dict) else None
        has = (
            f"s {names}, but none called 'default'" if names else f" {chat_template!r:.60}, no text"
        )
        raise SettingsError(
            f"the tokenizer has the chat template{has}: choose a layout with conv_type, one of "
            f"{', '.join(CONV_TYPES)}",
            "conv_type",
        )
    return template or None
