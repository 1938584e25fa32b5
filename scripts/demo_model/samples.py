"""Training rows: prose, repeated spans, and documents with facts that are asked for at the end."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from demo_model.needles import Needle, draw_hard, draw_needles
from demo_model.text import ASSISTANT, BOS, END, EOS, USER

PROSE, SHARED_FACT, OWN_FACT, TAIL = range(4)
"""Kinds of tokens: prose, keyed facts, unkeyed facts, and questions with answers. A keyed fact may
be shown to other rows as part of the crowd. An unkeyed fact may not, because it would contradict
the `The pass key is` of the other rows; nor may the questions."""

FILLER = (
    " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
)


@dataclass(frozen=True)
class Weights:
    """Weight of a token in the loss, by its role."""

    prose: float = 1.0
    around: float = 0.5
    fact: float = 0.15
    question: float = 0.2
    answer: float = 4.0


@dataclass
class Row:
    """Tokens, each with its weight as a target, its kind, and whether it is in an answer."""

    ids: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    answer: list[bool] = field(default_factory=list)

    def add(
        self, ids: Sequence[int], weight: float, kind: int = PROSE, answer: bool = False
    ) -> None:
        """Append tokens that share a role."""
        self.ids.extend(ids)
        self.weight.extend([weight] * len(ids))
        self.kind.extend([kind] * len(ids))
        self.answer.extend([answer] * len(ids))

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Batch:
    """Rows of T + 1 tokens as tensors; all tensors but `ids` describe the first or the last T.

    Attributes:
        ids: (B, T + 1); the first T are inputs, the last T targets.
        weight: weight of every target (B, T).
        kind: kind of every input (B, T).
        asks: whether an input token's target belongs to an answer (B, T).
    """

    ids: Tensor
    weight: Tensor
    kind: Tensor
    asks: Tensor


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of rows; the rest of the rows, up to a share of 1, have facts.

    Attributes:
        prose: share of rows with plain text only.
        copies: share of rows with repeated spans.
        hard: among the rows with facts, the share of rows with needles of `draw_hard`.
        alike: among the rows of copies, the share of rows with a span of a few symbols. In such a
            span most short runs of tokens occur several times, and only a longer look back
            separates the places.
    """

    prose: float
    copies: float
    hard: float = 0.0
    alike: float = 0.0


class Sampler:
    """Draws batches, each from its own seed, so that a resumed run draws the same batches.

    Args:
        tokenizer: the tokenizer of `ids`.
        ids: the training text as tokens.
        words: material for keys and names.
        seed: seed of the whole run.
    """

    def __init__(self, tokenizer: Tokenizer, ids: np.ndarray, words: list[str], seed: int) -> None:
        self._ids, self._words, self._seed = ids, words, seed
        self._tokenizer = tokenizer
        vocab = tokenizer.get_vocab()
        self._special = {name: vocab[name] for name in (BOS, EOS, USER, ASSISTANT, END)}
        self._filler = self._encode(FILLER)
        self._newline = self._encode("\n")
        self._weights = Weights()

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def batch(self, step: int, rows: int, length: int, mix: Mix) -> Batch:
        """Return the batch of one step: `rows` rows of `length` + 1 tokens."""
        rng = random.Random(f"{self._seed}/{step}")
        made = [self._row(rng, length + 1, mix) for _ in range(rows)]
        ids = torch.tensor([row.ids for row in made])
        weight = torch.tensor([row.weight for row in made])[:, 1:]
        kind = torch.tensor([row.kind for row in made])[:, :-1]
        asks = torch.tensor([row.answer for row in made])[:, 1:]
        return Batch(ids, weight, kind, asks)

    def _row(self, rng: random.Random, size: int, mix: Mix) -> Row:
        kind = rng.random()
        if kind < mix.prose:
            row = Row()
            if rng.random() < 0.5:
                row.add([self._special[BOS]], 0.0)
            row.add(self._prose(rng, size - len(row)), self._weights.prose)
            return row
        if kind < mix.prose + mix.copies:
            return self._copies(rng, size, mix.alike)
        return self._facts(rng, size, mix.hard)

    def _prose(self, rng: random.Random, size: int) -> list[int]:
        start = rng.randrange(len(self._ids) - size)
        ids: list[int] = self._ids[start : start + size].tolist()
        return ids

    def _copies(self, rng: random.Random, size: int, alike: float) -> Row:
        """Make a row that repeats one span; only the repetitions count in the loss."""
        row = Row()
        row.add([self._special[BOS]], 0.0)
        span_size = rng.randint(8, size // 2 - 2)
        kind = rng.random()
        if alike and rng.random() < alike:
            symbols = rng.sample("0123456789abcdef", rng.choice((3, 4, 6, 10, 16)))
            span = self._symbols(rng.choice(symbols) for _ in range(span_size))
        elif kind < 0.5:
            first = max(self._special.values()) + 1
            span = [
                rng.randrange(first, self._tokenizer.get_vocab_size()) for _ in range(span_size)
            ]
        elif kind < 0.8:
            span = self._encode("".join(rng.choice("0123456789") for _ in range(span_size)))
        else:
            span = self._prose(rng, span_size)
        row.add(span, 0.0)
        while len(row) < size:
            row.add(span[: size - len(row)], 1.0)
        return row

    def _symbols(self, drawn: Iterable[str]) -> list[int]:
        """Return one token per character."""
        return [self._encode(symbol)[0] for symbol in drawn]

    def _facts(self, rng: random.Random, size: int, hard: float) -> Row:
        """Make a document with facts in it, and questions about some of them after it."""
        chat = rng.random() < 0.25
        needles, packed = self._needles(rng, hard)
        asked = rng.sample(needles, min(len(needles), rng.choice((1, 1, 2, 3))))
        tail = self._tail(rng, asked, chat)
        head = Row()
        head.add([self._special[BOS]], 0.0)
        if chat:
            head.add([self._special[USER], *self._newline], self._weights.question)
        others = [needle for needle in needles if needle not in asked]
        room = size - len(head) - len(tail)
        facts = self._fitting(rng, asked, others, room)
        if facts is None:
            return self._facts(rng, size, hard)
        self._document(rng, head, facts, room, packed)
        head.add(tail.ids, 0.0, TAIL)
        head.weight[-len(tail) :] = tail.weight
        head.answer[-len(tail) :] = tail.answer
        return head

    def _needles(self, rng: random.Random, hard: float) -> tuple[list[Needle], bool]:
        """Draw facts for a row; return also whether they stand together, without prose between."""
        if hard and rng.random() < hard:
            return draw_hard(rng, self._words, 30)
        crowded = rng.random() < 0.2
        count = 12 if crowded else rng.choice((1, 1, 1, 2, 3, 5))
        return draw_needles(rng, self._words, count), False

    def _fitting(
        self, rng: random.Random, asked: list[Needle], others: list[Needle], room: int
    ) -> list[Row] | None:
        """Return facts as rows: all asked ones (None if they do not fit), and others that fit."""
        facts = [self._fact(rng, needle) for needle in asked]
        free = room - sum(map(len, facts))
        if free < 0:
            return None
        for needle in others:
            fact = self._fact(rng, needle)
            if len(fact) <= free:
                facts.append(fact)
                free -= len(fact)
        rng.shuffle(facts)
        return facts

    def _fact(self, rng: random.Random, needle: Needle) -> Row:
        row = Row()
        kind = SHARED_FACT if needle.keyed else OWN_FACT
        before, after = rng.choice(((" ", ""), ("\n", ""), (" ", ""), ("", "\n"), ("", " ")))
        row.add(self._encode(before + needle.statement + after), self._weights.fact, kind)
        return row

    def _document(
        self, rng: random.Random, row: Row, facts: list[Row], room: int, packed: bool
    ) -> None:
        """Fill `room` tokens of `row` with prose and, at random places, the facts."""
        free = room - sum(map(len, facts))
        if rng.random() < 0.12:
            text = (self._filler * (free // len(self._filler) + 1))[:free]
        else:
            text = self._prose(rng, free) if free else []
        if packed or rng.random() < 0.15:
            cuts = [free] * len(facts)
        else:
            cuts = sorted(rng.randint(0, free) for _ in facts)
        done = 0
        for cut, fact in zip(cuts, facts, strict=True):
            row.add(text[done:cut], self._weights.around)
            row.add(fact.ids, self._weights.fact, fact.kind[0])
            done = cut
        row.add(text[done:], self._weights.around)

    def _tail(self, rng: random.Random, asked: list[Needle], chat: bool) -> Row:
        """Make the questions with their answers, as plain text or as turns of a chat."""
        row, weights, special = Row(), self._weights, self._special
        for turn, needle in enumerate(asked):
            if chat and turn:
                row.add([special[USER], *self._newline], 0.0)
            gap = "" if chat and turn else rng.choice(("\n", "\n\n", " "))
            row.add(self._encode(gap + needle.question), weights.question)
            if chat:
                row.add([special[END], *self._newline, special[ASSISTANT]], 0.0)
                row.add(self._newline, 0.0)
                row.add(self._encode(needle.lead), weights.answer / 2)
            else:
                row.add(self._encode(" " + needle.lead), weights.question)
            end = special[END if chat else EOS]
            row.add(
                [*self._encode(needle.answer + needle.closing), end], weights.answer, answer=True
            )
            if chat:
                row.add(self._newline, 0.0)
        return row
