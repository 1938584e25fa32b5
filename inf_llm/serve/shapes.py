"""The shape of answers: what a request makes of a grammar, and of functions that may be called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inf_llm.errors import MissingExtraError, SettingsError
from inf_llm.generation.calls import CallForm, CallReader, form_of
from inf_llm.generation.closed_schema import closed
from inf_llm.generation.control import control_tokens
from inf_llm.generation.grammar import BOUNDED, Constraint, Grammar, Grammars
from inf_llm.generation.layout import Layout
from inf_llm.serve.errors import bad_value, unsupported
from inf_llm.serve.params import Question


@dataclass(frozen=True)
class Shape:
    """What the answers to a request look like.

    Attributes:
        grammar: that they follow; None for any text.
        form: of their calls; None where no function may be called.
        names: functions that may be called.
        without: tokens that are no part of a text with calls.
    """

    grammar: Grammar | None = None
    form: CallForm | None = None
    names: tuple[str, ...] = ()
    without: frozenset[int] = frozenset()

    def constraint(self, prompt: int, longest: int) -> Constraint | None:
        """What makes an answer follow the grammar; see `Grammar.constraint`."""
        return None if self.grammar is None else self.grammar.constraint(prompt, longest)

    def reader(self) -> CallReader | None:
        """What separates words and calls of an answer."""
        return None if self.form is None else CallReader(self.form, self.names)


ANY = Shape()


class Shapes:
    """Makes shapes for the answers of one model.

    Args:
        tokenizer: the model's.
        layout: of its prompts.
        vocabulary: tokens that it knows.
        ends: tokens that end an answer.
        form: name of the form of its calls; None for that of its chat template.

    Raises:
        SettingsError: there is no such form.
    """

    def __init__(
        self,
        tokenizer: Any,
        layout: Layout,
        vocabulary: int,
        ends: Sequence[int] | None,
        form: str | None = None,
    ) -> None:
        self._grammars = Grammars(tokenizer, vocabulary, ends)
        self._form = form_of(layout.template if layout.takes_tools else None, form)
        control = control_tokens(tokenizer).ids
        special = {*control.values(), *getattr(tokenizer, "all_special_ids", ())}
        self._without = frozenset(special - {control.get(text) for text in self._form.tokens})

    def of(self, question: Question) -> Shape:
        """The shape of the answers to a question.

        Raises:
            ApiError: its grammar cannot be enforced.
        """
        functions = question.functions
        if not functions.tools:
            return ANY if question.schema is None else Shape(self._grammar(question))
        names = tuple(tool.name for tool in functions.tools)
        return Shape(self._grammar(question), self._form, names, self._without)

    def _grammar(self, question: Question) -> Grammar | None:
        functions, schema = question.functions, question.schema
        param = "tools" if functions.forced else "response_format"
        try:
            if not functions.tools and schema is not None:
                return self._grammars.of_schema(schema)
            if functions.forced or schema is not None:
                return self._grammars.of_lark(self._rules(question))
        except MissingExtraError as error:
            raise unsupported(param, f"{param}: {error}") from None
        except SettingsError as error:
            raise bad_value(param, f"{param}: {error}") from None
        return None

    def _rules(self, question: Question) -> str:
        """Of calls, or of calls and the answer that is wanted where none is made."""
        functions = question.functions
        several = functions.several and self._form.several
        called = functions.forced or functions.tools
        calls = self._form.rules(called, several, self._grammars.lark_piece)
        if functions.forced:
            return f"start: calls\n{calls}"
        reply = json.dumps({**closed(question.schema or {}), "x-guidance": BOUNDED})
        return f"start: calls | reply\nreply: %json {reply}\n{calls}"
