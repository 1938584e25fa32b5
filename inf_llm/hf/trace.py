"""A trace of the blocks that a model recalled while it read and answered, per layer and token.

    with inf_llm.trace(model) as trace:
        model.generate(ids, max_new_tokens=20)
    for recall in trace.recalls:
        print(recall.token, recall.layer, recall.spans, recall.scores)
    for passage in trace.passages()[:5]:
        print(f"{passage.score:.2f}", passage.text(ids[0], tokenizer))

Only block numbers and scores are kept. They stay on their device until they are read, and the
host does not wait for the device until then. A trace records only passes of its own thread.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from contextvars import Token
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from torch import Tensor

from inf_llm.attention.base import AttentionObserver, LayerAttention, Running, running
from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.errors import UnsupportedModelError
from inf_llm.hf.cache import MemoryCache
from inf_llm.hf.patch import patched
from inf_llm.settings import InfLLMSettings

Span = tuple[int, int]
"""Positions [start, end) of tokens in their row, where padding is not counted."""


@dataclass(frozen=True)
class Recall:
    """The blocks that one layer recalled for one row, or for one chooser of a row.

    A chooser is a key head or a query head, where the heads choose their blocks separately.

    Attributes:
        layer: number of the layer.
        row: row of the batch.
        head: number of the chooser, such as the query head; None where all heads choose together.
        first, last: the tokens [first, last) that the blocks were chosen for: an execution block,
            which is the group of tokens that attention computes at once.
        token: number of the generated token that is predicted, from 0; None while a prompt is read.
        blocks: numbers of the recalled blocks, ascending.
        scores: the score of each block, in that order; None where there were so few blocks that all
            were taken.
        spans: the tokens of each block.
    """

    layer: int
    row: int
    head: int | None
    first: int
    last: int
    token: int | None
    blocks: tuple[int, ...]
    scores: tuple[float, ...] | None
    spans: tuple[Span, ...]

    @property
    def weights(self) -> tuple[float, ...]:
        """1 for the best block, down to 1/k for the last of k; all 1/2 where all blocks were taken.

        Scores of different layers are not comparable, ranks are.
        """
        count = len(self.blocks)
        if self.scores is None:
            return (0.5,) * count
        order = sorted(range(count), key=lambda at: -self.scores[at])  # type: ignore[index]
        weights = [0.0] * count
        for rank, at in enumerate(order):
            weights[at] = (count - rank) / count
        return tuple(weights)


@dataclass(frozen=True)
class Passage:
    """A block, and a measure of how much it was recalled.

    Attributes:
        block: number of the block in the row.
        start, end: the tokens [start, end) of the block.
        score: mean of `Recall.weights` over all tokens, layers and heads in view: 1 if each of them
            ranked the block first, 0 if none recalled it.
        count: number of recalls that have the block.
        layers: layers that recalled the block, ascending.
    """

    block: int
    start: int
    end: int
    score: float
    count: int
    layers: tuple[int, ...]

    def text(self, ids: Sequence[int] | Tensor, tokenizer: Any) -> str:
        """Return the text of the block, from the ids of its row (without padding)."""
        return str(tokenizer.decode(ids[self.start : self.end], skip_special_tokens=True))


@dataclass(frozen=True)
class _Seen:
    """The recall of one execution block, as recorded; tensors are (B, X, k)."""

    layer: int
    row: int
    first: int
    last: int
    token: int | None
    blocks: Tensor
    scores: Tensor | None


class trace(AttentionObserver):  # noqa: N801 (used like a function)
    """A recorder of what a model recalls while it reads and generates, within a `with` statement.

    Args:
        model: a model patched with type inf-llm.
        prompts: record the recalls of prompts too, not only those of generated tokens.
        session: a cache of one row, and the length of the prompt that is answered: record only what
            feeds this cache. None records all that the thread feeds within the statement.

    Raises:
        UnsupportedModelError: the model is not patched with type inf-llm, so it recalls nothing.
    """

    def __init__(
        self, model: Any, prompts: bool = True, session: tuple[MemoryCache, int] | None = None
    ) -> None:
        state = patched(model)
        settings = getattr(state, "settings", None)
        if not isinstance(settings, InfLLMSettings):
            how = "is not patched" if settings is None else f"has type {settings.type!r}"
            raise UnsupportedModelError(
                f"this {type(model).__name__} {how}, so it recalls nothing: patch it with "
                "type 'inf-llm' to trace what it recalls"
            )
        self.settings = settings
        self._patch = state
        self._prompts = prompts
        self._only = session
        self._seen: list[_Seen] = []
        self._layer: int | None = None
        self._rows: Any = None
        self._prompt_end: int | None = None
        self._token: Token[Running] | None = None

    def __enter__(self) -> trace:
        now = running.get()
        self._token = running.set(replace(now, observers=(*now.observers, self)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._token is not None:
            running.reset(self._token)
            self._token = None
        self._rows = None

    def on_layer(self, patch: object, layer: int, rows: Any, prompt_end: int | None) -> None:
        """See `AttentionObserver`."""
        self._layer = layer if patch is self._patch else None
        self._rows, self._prompt_end = rows, prompt_end
        if self._only is not None and self._layer is not None:
            held: list[Any] = self._only[0].layers
            self._rows, self._prompt_end = held[layer].rows, self._only[1]

    def on_block(self, attention: LayerAttention, first: int, last: int) -> None:
        """See `AttentionObserver`."""
        if self._layer is None or not isinstance(attention, InfLLMAttention):
            return
        recalled = attention.recalled
        if attention not in self._rows.members:
            return
        row = self._rows.row_of(attention)
        token = self._predicted(last + self._rows.padding_of(row))
        if recalled is None or (token is None and not self._prompts):
            return
        self.__dict__.pop("recalls", None)
        self._seen.append(
            _Seen(self._layer, row, first, last, token, recalled.blocks, recalled.scores)
        )

    def _predicted(self, end: int) -> int | None:
        """Return the number of the generated token that token `end - 1` predicts, or None."""
        if self._prompt_end is None or end < self._prompt_end:
            return None
        return end - self._prompt_end

    @functools.cached_property
    def recalls(self) -> tuple[Recall, ...]:
        """All recorded recalls, in the order they happened."""
        return tuple(recall for seen in self._seen for recall in self._recalls_of(seen))

    def _recalls_of(self, seen: _Seen) -> Iterable[Recall]:
        blocks = seen.blocks.tolist()
        scores = None if seen.scores is None else seen.scores.tolist()
        for row, heads in enumerate(blocks):
            for head, numbers in enumerate(heads):
                yield Recall(
                    seen.layer,
                    seen.row + row,
                    head if len(heads) > 1 else None,
                    seen.first,
                    seen.last,
                    seen.token,
                    tuple(numbers),
                    None if scores is None else tuple(scores[row][head]),
                    tuple(self.span(block) for block in numbers),
                )

    def span(self, block: int) -> Span:
        """Return the tokens of a block."""
        start = self.settings.n_init + block * self.settings.block_size
        return start, start + self.settings.block_size

    @property
    def tokens(self) -> int:
        """Number of generated tokens seen."""
        return max((seen.token + 1 for seen in self._seen if seen.token is not None), default=0)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that recalled blocks, ascending."""
        return tuple(sorted({seen.layer for seen in self._seen}))

    def passages(
        self, row: int = 0, layer: int | None = None, token: int | None = None
    ) -> list[Passage]:
        """Return the blocks that were recalled for generated tokens, the most recalled first.

        Args:
            row: row of the batch.
            layer: number of the only layer to count; None for all layers.
            token: number of the only generated token to count; None for all of them.
        """
        return rank(self.generated(row, layer, token))

    def generated(
        self, row: int = 0, layer: int | None = None, token: int | None = None
    ) -> list[Recall]:
        """Return the recalls for generated tokens; the arguments are those of `passages`."""
        return [
            recall
            for recall in self.recalls
            if recall.row == row
            and recall.token is not None
            and layer in (None, recall.layer)
            and token in (None, recall.token)
        ]


def rank(recalls: Sequence[Recall]) -> list[Passage]:
    """Return the blocks of some recalls, the most recalled first."""
    spans = spans_of(recalls)
    return [
        Passage(found.group, *spans[found.group], found.score, found.count, found.layers)
        for found in tally(recalls, {block: block for block in spans})
    ]


def spans_of(recalls: Iterable[Recall]) -> dict[int, Span]:
    """Return the tokens of every recalled block."""
    return {
        block: span
        for recall in recalls
        for block, span in zip(recall.blocks, recall.spans, strict=True)
    }


@dataclass(frozen=True)
class Tally:
    """The measure of a group of blocks: `score`, `count` and `layers` are as in `Passage`.

    A recall that has several blocks of the group counts once, with the largest weight.
    """

    group: int
    score: float
    count: int
    layers: tuple[int, ...]


def tally(recalls: Sequence[Recall], groups: Mapping[int, int]) -> list[Tally]:
    """Return the tallies of groups of blocks, the most recalled first.

    Args:
        recalls: the recalls to count.
        groups: the group of each block; blocks without a group are not counted.
    """
    weights: dict[int, float] = {}
    counts: dict[int, int] = {}
    layers: dict[int, set[int]] = {}
    for recall in recalls:
        for group, weight in _best(recall, groups).items():
            weights[group] = weights.get(group, 0.0) + weight
            counts[group] = counts.get(group, 0) + 1
            layers.setdefault(group, set()).add(recall.layer)
    found = [
        Tally(group, weights[group] / len(recalls), counts[group], tuple(sorted(layers[group])))
        for group in weights
    ]
    return sorted(found, key=lambda tally: (-tally.score, tally.group))


def _best(recall: Recall, groups: Mapping[int, int]) -> dict[int, float]:
    """Return the largest weight that a recall gave to a block of each group."""
    best: dict[int, float] = {}
    for block, weight in zip(recall.blocks, recall.weights, strict=True):
        if block in groups:
            group = groups[block]
            best[group] = max(weight, best.get(group, 0.0))
    return best
