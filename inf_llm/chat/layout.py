"""From messages to a prompt: how a model was trained to be spoken to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from inf_llm.chat.turns import ASSISTANT, BETWEEN, USER
from inf_llm.conversation import CONV_TYPES, PLAIN, TEMPLATES
from inf_llm.errors import SettingsError, TextError
from inf_llm.registry import accepted

Message = dict[str, str]


class Layout(ABC):
    """A way to lay out a conversation.

    Attributes:
        name: for a person.
        roles: what the two sides are called.
        adds_special: whether special tokens must be added when the prompt is encoded.
        stops: texts that end an answer.
        ends: tokens that end an answer, beside the model's own.
    """

    name: str
    roles = ("USER", "ASSISTANT")
    adds_special = False
    stops: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()

    @abstractmethod
    def prompt(self, messages: Sequence[Message]) -> str:
        """The prompt that ends where the answer to the last message begins.

        Raises:
            TextError: the template does not take these messages.
        """


class PlainLayout(Layout):
    """The texts as they are, with an empty line between."""

    name = "nothing (plain text; --conv-template picks a template)"
    adds_special = True

    def prompt(self, messages: Sequence[Message]) -> str:
        """See `Layout`."""
        return BETWEEN.join(message["content"] for message in messages)


class TemplateLayout(Layout):
    """A template in the form that tokenizers have.

    Args:
        tokenizer: renders it.
        template: the template; the tokenizer's own where it is None.
        name: for a person.
    """

    def __init__(self, tokenizer: Any, template: str | None, name: str) -> None:
        self.name = name
        self._tokenizer, self._template = tokenizer, template
        self.ends = self._turn_ends()

    def prompt(self, messages: Sequence[Message]) -> str:
        """See `Layout`."""
        return self._render(messages, add_generation_prompt=True)

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages),
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        except Exception as error:  # a template raises what its author thought of
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TextError(f"{self.name} does not take this conversation: {reason}") from None
        return str(text)

    def _turn_ends(self) -> tuple[int, ...]:
        """The special token that the template writes after an answer, if it writes one."""
        answer = "An answer, as an example."
        example = [{"role": USER, "content": "?"}, {"role": ASSISTANT, "content": answer}]
        try:
            text = self._render(example, add_generation_prompt=False)
        except TextError:
            return ()
        after = text.rpartition(answer)[2].lstrip()
        special = self._tokenizer.get_added_vocab()
        special |= dict(
            zip(self._tokenizer.all_special_tokens, self._tokenizer.all_special_ids, strict=True)
        )
        return tuple(index for token, index in special.items() if token and after.startswith(token))


class FastChatLayout(Layout):
    """One of FastChat's conversation templates.

    Args:
        name: as FastChat has it.
    """

    adds_special = True

    def __init__(self, name: str) -> None:
        from fastchat.conversation import get_conv_template

        self.name = f"FastChat's template {name!r}"
        self._blank = get_conv_template(name)
        self.roles = tuple(self._blank.roles)
        stops = self._blank.stop_str or ()
        self.stops = (stops,) if isinstance(stops, str) else tuple(stops)
        self.ends = tuple(self._blank.stop_token_ids or ())

    def prompt(self, messages: Sequence[Message]) -> str:
        """See `Layout`."""
        conversation = self._blank.copy()
        for message in messages:
            role = self.roles[message["role"] == ASSISTANT]
            conversation.append_message(role, message["content"])
        conversation.append_message(self.roles[1], None)
        return str(conversation.get_prompt())


def choose_layout(tokenizer: Any, conv_type: str | None = None) -> Layout:
    """The layout of a name; without one the tokenizer's own, or plain text where it has none.

    Args:
        tokenizer: the model's.
        conv_type: one of `CONV_TYPES`, or a name of FastChat's.

    Raises:
        SettingsError: nobody has a template of this name.
    """
    if conv_type is None and getattr(tokenizer, "chat_template", None):
        return TemplateLayout(tokenizer, None, "the tokenizer's template")
    if conv_type in (None, PLAIN):
        return PlainLayout()
    if conv_type in TEMPLATES:
        return TemplateLayout(tokenizer, TEMPLATES[conv_type], f"template {conv_type!r}")
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
    return FastChatLayout(conv_type)
