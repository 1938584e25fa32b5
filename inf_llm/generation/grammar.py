"""Answers that follow a grammar: JSON of a schema, or a grammar in Lark's notation.

    grammars = Grammars(tokenizer, vocabulary, ends)    # once for a model
    grammar = grammars.of_schema({"type": "object"})    # once for a request
    constraint = grammar.constraint(len(session.ids), 256)   # once for an answer
    options["logits_processor"] = [constraint]
    options["stopping_criteria"] = [constraint.over]

The package llguidance, in the extra `structured`, computes the tokens that may follow at each step.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from inf_llm.errors import SettingsError, TextError
from inf_llm.generation.closed_schema import closed
from inf_llm.generation.closing import Closers, Closing, unpacked
from inf_llm.generation.control import control_tokens, private, renamed
from inf_llm.optional import need

EXTRA = "structured"
BOUNDED = {
    # at most one space or one indented line: a model that repeats itself would write without end
    "whitespace_pattern": r"(\x20|\n[\x20\x09]{0,16})",
    # the schema must be enforced exactly as it is written
    "lenient": False,
    "coerce_one_of": False,
}
"""llguidance's options for JSON; the value of `x-guidance` in a schema inside a Lark grammar."""
LONGEST = 200_000
"""Most characters of a grammar. A longer one would take more than seconds to prepare."""
MAX_ITEMS = 20_000
"""Items of a parser's row: an object has four for each property that may be left out."""
TRIED = 256
"""Most tokens of the text that is tried with a grammar before an answer."""
MAX_REMAINDERS = 50_000
"""Most remainders for all numbers with `multipleOf` in a grammar. Each remainder is a state that
llguidance prepares in advance. This takes up to a second for this limit; for millions of states the
preparation does not end and cannot be stopped."""
_VALUES = ("const", "enum", "default", "examples")  # of a schema, with values and no rules
_MULTIPLE = re.compile(r'"multipleOf" *: *([0-9.eE+-]+)')
_SHOWN = 300
"""Most characters of a message of llguidance that an error shows."""


class Grammars:
    """Makes grammars for the answers of one model.

    Args:
        tokenizer: the tokenizer of the model, a fast one.
        vocabulary: vocabulary size of the model.
        ends: ids of tokens that end an answer; None or empty for that of the tokenizer.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, ends: Sequence[int] | None) -> None:
        self._tokenizer, self._vocabulary, self._ends = tokenizer, vocabulary, list(ends or ())
        self._lock = threading.Lock()

    def of_schema(self, schema: Any) -> Grammar:
        """Return the grammar of all JSON texts that a JSON schema accepts.

        Raises:
            SettingsError: the schema is invalid or cannot be enforced; the message has the reason.
            MissingExtraError: llguidance is not installed.
        """
        grammar = _schema_grammar(schema)
        self.check_patterns(schema)
        return replace(self._made(grammar), closers=self._closers)

    def check_patterns(self, schema: Any) -> None:
        """Check that each regular expression of a schema can be enforced.

        llguidance finds out only when an answer comes to it.

        Raises:
            SettingsError: one cannot be enforced.
        """
        for pattern in sorted(_patterns(schema)):
            self._made(_schema_grammar({"type": "string", "pattern": pattern}), f"{pattern!r} in ")

    def of_lark(self, rules: str) -> Grammar:
        """Return the grammar of rules in llguidance's form of Lark; see also `lark_piece`."""
        return self._made(_llguidance().LLMatcher.grammar_from_lark(rules))

    def lark_piece(self, text: str) -> str:
        """Return a text in Lark's notation: its token if it is an added token, or else a string."""
        index = self._added.get(text)
        return json.dumps(text, ensure_ascii=False) if index is None else f"<[{index}]>"

    def _made(self, grammar: str, what: str = "") -> Grammar:
        """Return a grammar from its notation; `what` of the schema it is for stands in errors."""
        if len(grammar) > LONGEST:
            raise SettingsError(
                f"the schema makes a grammar of {len(grammar):,} characters: give one of at most "
                f"{LONGEST:,}"
            )
        _check_multiples(grammar)
        with self._lock:
            inner = self._inner
        limits = _llguidance().LLParserLimits(max_items_in_row=MAX_ITEMS)
        matcher = _llguidance().LLMatcher(inner, grammar, log_level=0, limits=limits)
        problems = [matcher.get_error()] if matcher.is_error() else matcher.get_grammar_warnings()
        if not problems and not _begins(matcher.deep_copy()):
            problems = ["no text fits it"]
        problem = problems[0] if problems else self._closers.problem(matcher, TRIED)
        if problem is not None:
            raise SettingsError(f"{what[:_SHOWN]}the schema cannot be enforced: {_short(problem)}")
        return Grammar(matcher)

    @cached_property
    def _closers(self) -> Closers:
        with self._lock:
            inner = self._inner
        return Closers([inner.decode_bytes([token]) for token in range(inner.vocab_size)])

    @cached_property
    def _added(self) -> dict[str, int]:
        """Ids by text of the added tokens and the control tokens, without single characters."""
        if not getattr(self._tokenizer, "is_fast", False):
            raise SettingsError("an answer can follow a grammar with a fast tokenizer only")
        added = {token.content: i for i, token in self._tokenizer.added_tokens_decoder.items()}
        added |= control_tokens(self._tokenizer).ids
        return {name: index for name, index in added.items() if len(name.strip()) > 1}

    @cached_property
    def _inner(self) -> Any:
        """The tokenizer of llguidance, which takes seconds to make for a large vocabulary.

        Its added tokens are special and have random private names, which occur in no text. Strings
        of a grammar are therefore matched by ordinary tokens only.
        """
        make = _llguidance().LLTokenizer
        names = {name: private(len(name)) for name in self._added}
        try:
            data = json.loads(
                renamed(self._tokenizer.backend_tokenizer, self._added, names).to_str()
            )
        except TextError as error:
            raise SettingsError(f"this tokenizer cannot follow a grammar: {error}") from None
        special = set(self._added.values())
        for token in data["added_tokens"]:
            token["special"] = token["special"] or token["id"] in special
        ends = self._ends or self._tokenizer.eos_token_id
        return make(json.dumps(data), n_vocab=self._vocabulary, eos_token=ends)


@dataclass(frozen=True)
class Grammar:
    """A prepared grammar, from which constraints for answers are made.

    Attributes:
        matcher: matcher of llguidance at the start of a text.
        closers: completes a text that reaches its longest length. None to cut such a text: a
            function call, for example, has another effect with half of its arguments.
    """

    matcher: Any
    closers: Closers | None = None

    def constraint(self, prompt: int, longest: int) -> Constraint:
        """Return the constraint that makes one answer follow the grammar.

        Args:
            prompt: number of tokens before the answer.
            longest: most tokens of the answer.
        """
        closing = None if self.closers is None else Closing(self.closers, self.matcher, longest)
        return Constraint(self.matcher.deep_copy(), prompt, closing)


class Constraint:
    """A logits processor for `generate` that excludes tokens outside the grammar, for one row.

    Args:
        matcher: matcher of llguidance at the start of the answer.
        prompt: number of tokens before the answer.
        closing: completes the answer before its longest length; None for an answer that is cut.
    """

    def __init__(self, matcher: Any, prompt: int, closing: Closing | None = None) -> None:
        self._matcher, self._prompt, self._read, self._closing = matcher, prompt, prompt, closing

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (1, V) with -inf for the tokens that may not follow ids (1, n)."""
        self._follow(ids)
        allowed = unpacked(self._matcher.compute_bitmask())[: scores.shape[1]]
        self._check()
        token = None
        if self._closing is not None:
            token = self._closing.token(self._matcher, self._read - self._prompt)
        if token is not None:
            allowed = torch.arange(len(allowed)) == token
        allowed = allowed.to(scores.device)
        left = torch.full_like(scores, -math.inf)
        left[:, : len(allowed)] = scores[:, : len(allowed)].masked_fill(~allowed, -math.inf)
        if not (left > -math.inf).any():  # another processor excludes them; the grammar wins
            left[:, : len(allowed)].masked_fill_(allowed, 0)
        return left

    def over(self, ids: Tensor, scores: Any, **more: Any) -> Tensor:
        """Return whether the row is complete and no token may follow (1,); a stopping criterion."""
        self._follow(ids)
        return torch.full((1,), self.complete, dtype=torch.bool, device=ids.device)

    @property
    def closed(self) -> bool:
        """Whether the answer was completed by `closing` because it reached its longest length."""
        return self._closing is not None and self._closing.begun

    @property
    def complete(self) -> bool:
        """Whether the answer is complete, so that the grammar allows no further token."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def _follow(self, ids: Tensor) -> None:
        new = ids[0, self._read :].tolist()
        self._read += len(new)
        if new and not self._matcher.is_stopped():
            self._matcher.consume_tokens(new)
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise SettingsError(
                f"the schema cannot be enforced further: {_short(self._matcher.get_error())}"
            )


def _check_multiples(grammar: str) -> None:
    """Check that the `multipleOf` values of a grammar need at most `MAX_REMAINDERS` remainders.

    Powers of ten need none. The least common multiple of all values is counted, because two values
    for one number make a rule for multiples of both.
    """
    given, common = _MULTIPLE.findall(grammar), 1
    for text in given:
        digits = Decimal(text).normalize().as_tuple().digits
        common = math.lcm(common, int("".join(map(str, digits))))
        if common * len(given) > MAX_REMAINDERS:
            raise SettingsError(
                f"the schema has multipleOf = {text[:40]}, which makes {common * len(given):,} "
                f"remainders for all its multiples: give fewer or smaller ones, for at most "
                f"{MAX_REMAINDERS:,}"
            )


def _patterns(schema: Any) -> set[str]:
    """Return the regular expressions of a schema, or of a part of it."""
    if isinstance(schema, list):
        return {each for part in schema for each in _patterns(part)}
    if not isinstance(schema, dict):
        return set()
    parts = {key: part for key, part in schema.items() if key not in _VALUES}
    own = {parts["pattern"]} if isinstance(parts.get("pattern"), str) else set()
    return own | _patterns([*parts.values()])


def _schema_grammar(schema: Any) -> str:
    make = _llguidance().LLMatcher.grammar_from_json_schema
    try:
        return str(make(closed(schema), overrides=BOUNDED))
    except SettingsError:
        raise
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"the schema is no JSON schema: {_short(str(error))}") from None


def _llguidance() -> Any:
    return need("llguidance", "an answer in a form that is asked for", EXTRA)


def _begins(matcher: Any) -> bool:
    """Return whether the grammar allows a first token."""
    some = any(matcher.compute_bitmask())
    return some and not matcher.is_error() and not matcher.is_stopped()


def _short(words: str) -> str:
    """Return the first part of a message of llguidance, on one line and without its state dump."""
    words = " ".join(words.split("<state>")[0].split())
    return words if len(words) <= _SHOWN else words[: _SHOWN - 3] + "..."
