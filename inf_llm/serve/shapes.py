"""The shape of answers: the grammar that a request requires, and the functions it offers."""

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
    """The grammar and the function calls of the answers to a request.

    Attributes:
        grammar: grammar of the answers; None for any text.
        form: form of function calls; None if no function may be called.
        names: names of the functions that may be called.
        without: tokens that are left out of the text of an answer that may have calls.
    """

    grammar: Grammar | None = None
    form: CallForm | None = None
    names: tuple[str, ...] = ()
    without: frozenset[int] = frozenset()

    def constraint(self, prompt: int, longest: int) -> Constraint | None:
        """Return the logits processor that enforces the grammar; see `Grammar.constraint`."""
        return None if self.grammar is None else self.grammar.constraint(prompt, longest)

    def reader(self) -> CallReader | None:
        """Return a reader that separates text and function calls of an answer."""
        return None if self.form is None else CallReader(self.form, self.names)


ANY = Shape()


class Shapes:
    """Makes shapes for the answers of one model.

    Args:
        tokenizer: the model's tokenizer.
        layout: layout of the model's prompts.
        vocabulary: number of token ids in the model's vocabulary.
        ends: tokens that end an answer.
        form: name of the form of function calls; None for the form of the chat template.

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
        """Make the shape of the answers to a question.

        Raises:
            ApiError: the grammar cannot be enforced.
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
                grammar = self._grammars.of_lark(self._rules(question))
                called = functions.forced or functions.tools
                self._grammars.check_patterns([schema, *(tool.parameters for tool in called)])
                return grammar
        except MissingExtraError as error:
            raise unsupported(param, f"{param}: {error}") from None
        except SettingsError as error:
            raise bad_value(param, f"{param}: {error}") from None
        return None

    def _rules(self, question: Question) -> str:
        """Write the Lark rules of calls, or of calls or an answer that fits the schema."""
        functions = question.functions
        several = functions.several and self._form.several
        called = functions.forced or functions.tools
        calls = self._form.rules(called, several, self._grammars.lark_piece)
        if functions.forced:
            return f"start: calls\n{calls}"
        reply = json.dumps({**closed(question.schema or {}), "x-guidance": BOUNDED})
        return f"start: calls | reply\nreply: %json {reply}\n{calls}"
