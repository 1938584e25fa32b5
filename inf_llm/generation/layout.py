"""From messages to a prompt: the one place where run, chat, the server and the benchmark do it."""

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
"""A role and a content; an answer may have `tool_calls`, and a message of the role `tool` the
`tool_call_id` and `name` of what it is the result of."""
Hide = Callable[[str], str]
"""What a content becomes before it is laid out: `as_text` of a tokenizer, or itself by `str`."""

_MARK = "An example of what is said."
_NAME = "name_of_no_function"
_SHOWN = 40
"""Characters of a message that an error shows."""


class Layout(ABC):
    """A way to lay out a conversation.

    Args:
        hide: keeps control tokens of contents out of the prompt.

    Attributes:
        name: for a person.
        roles: what the two sides are called.
        adds_special: whether special tokens must be added when the prompt is encoded.
        stops: texts that end an answer.
        ends: tokens that end an answer, beside the model's own.
        takes_tools: whether it writes the functions that may be called.
        template: in the form that tokenizers have; None where it is none.
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
        """The prompt that ends where the answer to the last message begins, for `encode`.

        Args:
            messages: the conversation.
            continued: the answer goes on with the last message, whose turn stays open.
            tools: functions that may be called, in OpenAI's form, where the layout `takes_tools`.

        Raises:
            TextError: the template does not take these messages, or leaves one of them out.
        """
        hidden = [self._hidden(message) for message in messages]
        text = self._laid_out(hidden, not continued, self._hidden(list(tools)))
        kept = self._turns_kept(messages)
        for message, given, is_kept in zip(messages, hidden, kept, strict=True):
            # earlier answers may be shortened: templates of thinking models drop the thoughts
            lost = message["role"] != ASSISTANT and not _stands(given["content"].strip(), text)
            if lost or not is_kept:
                said = message["content"].strip()
                shown = said if len(said) <= _SHOWN else said[:_SHOWN] + "..."
                raise TextError(
                    f"{self.name} leaves out what the {message['role']} says ({shown!r}): choose "
                    f"another layout with conv_type, one of {', '.join(CONV_TYPES)}"
                )
        return self._open(text, hidden[-1]["content"]) if continued else text

    def _open(self, text: str, last: str) -> str:
        """A prompt without what closes its last turn."""
        for said in (last, last.rstrip(), last.strip()):
            found = text.rfind(said)
            if found >= 0:
                return text[: found + len(said)]
        raise TextError(f"{self.name} changes the last message, so that it cannot be continued")

    def _hidden(self, value: Any) -> Any:
        """A value in which every text is hidden."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, dict):
            return {self.hide(name): self._hidden(inner) for name, inner in value.items()}
        return [self._hidden(inner) for inner in value] if isinstance(value, list) else value

    def _turns_kept(self, messages: Sequence[Message]) -> list[bool]:
        """Whether each turn has its place in the layout.

        Seen with words that occur nowhere else: what is really said may also stand in another turn
        or in the template itself. A template that takes real words only counts as keeping them, and
        so does a turn that has calls, beside which templates leave words out.
        """
        said = [f"-said{turn}-" for turn in range(len(messages))]
        turns = [{**m, "content": words} for m, words in zip(messages, said, strict=True)]
        try:
            text = self._laid_out(turns, True)
        except TextError:
            return [True] * len(turns)
        return [words in text or "tool_calls" in m for m, words in zip(messages, said, strict=True)]

    @abstractmethod
    def _laid_out(
        self, messages: Sequence[Message], invites: bool, tools: Sequence[dict[str, Any]] = ()
    ) -> str:
        """The conversation, whatever has become of the messages.

        Args:
            messages: the conversation.
            invites: whether an answer's turn begins at the end.
            tools: see `prompt`.
        """


class PlainLayout(Layout):
    """The texts as they are, with an empty line between."""

    name = "nothing (plain text; --conv-template picks a template)"
    adds_special = True

    def _laid_out(
        self, messages: Sequence[Message], invites: bool, tools: Sequence[dict[str, Any]] = ()
    ) -> str:
        return BETWEEN.join(message["content"] for message in messages)


class TemplateLayout(Layout):
    """A template in the form that tokenizers have.

    Args:
        tokenizer: renders it.
        template: the template.
        name: for a person.
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
        except Exception as error:  # a template raises what its author thought of
            raise TextError(
                f"{self.name} does not take this conversation: {reason(error)}"
            ) from None
        return str(text)

    @cached_property
    def takes_tools(self) -> bool:  # type: ignore[override]
        """Whether the template writes the functions that may be called."""
        function = {"name": _NAME, "description": _MARK, "parameters": {"type": "object"}}
        asked = {"role": USER, "content": _MARK}
        try:
            return _NAME in self._laid_out(
                [asked], True, [{"type": "function", "function": function}]
            )
        except TextError:
            return False

    @cached_property
    def _form(self) -> _Form:
        """How the template wants what is said: as it is, or as a list of parts."""
        for form in _FORMS:
            text = self._example(form, {"role": USER})
            if _MARK in text and repr(_MARK) not in text:  # not the list itself, written out
                return form
        return _FORMS[0]

    def _example(self, form: _Form, *turns: Message) -> str:
        """A rendered conversation in which each of these says the same; "" if it is not taken."""
        try:
            said = [{**turn, "content": _MARK} for turn in turns]
            return self._render(said, form, add_generation_prompt=False)
        except TextError:
            return ""

    @cached_property
    def ends(self) -> tuple[int, ...]:  # type: ignore[override]
        """The special token that the template writes after an answer, if it writes one."""
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
    """One of FastChat's conversation templates.

    Args:
        name: as FastChat has it.
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
    """Whether a text has a content, be it written as JSON, as some templates do with results."""
    return content in text or json.dumps(content, ensure_ascii=False)[1:-1] in text


def choose_layout(
    tokenizer: Any, conv_type: str | None = None, control_tokens: bool = False
) -> Layout:
    """The layout of a name; without one the tokenizer's own, or plain text where it has none.

    Args:
        tokenizer: the model's.
        conv_type: one of `CONV_TYPES`, or a name of FastChat's.
        control_tokens: whether contents may have control tokens, as "<|im_end|>" may be one; else
            they are ordinary text.

    Raises:
        SettingsError: there is no template of this name, or the tokenizer has several and none of
            them is the default.
    """
    require_type("conv_type", conv_type, str, optional=True)
    hide: Hide = str if control_tokens else partial(as_text, tokenizer)
    if conv_type is None:
        own = own_template(tokenizer)
        if own:
            return TemplateLayout(tokenizer, own, "the tokenizer's template", hide)
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
    """The chat template of a tokenizer: its only one, or of several the one called "default".

    Raises:
        SettingsError: there are several, and none is called so; or it is no text.
    """
    own = getattr(tokenizer, "chat_template", None)
    if isinstance(own, list):  # as tokenizer_config.json has them
        own = {row.get("name"): row.get("template") for row in own if isinstance(row, dict)}
    template = own.get("default") if isinstance(own, dict) else own
    if own and not isinstance(template, str):
        names = ", ".join(map(str, own)) if isinstance(own, dict) else None
        has = f"s {names}, but none called 'default'" if names else f" {own!r:.60}, no text"
        raise SettingsError(
            f"the tokenizer has the chat template{has}: choose a layout with conv_type, one of "
            f"{', '.join(CONV_TYPES)}",
            "conv_type",
        )
    return template or None
