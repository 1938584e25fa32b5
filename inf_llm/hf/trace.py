"""Which blocks a model recalled while it read and answered, per layer and token.

    with inf_llm.trace(model) as trace:
        model.generate(ids, max_new_tokens=20)
    for recall in trace.recalls:
        print(recall.token, recall.layer, recall.spans, recall.scores)
    for passage in trace.passages()[:5]:
        print(f"{passage.score:.2f}", passage.text(ids[0], tokenizer))

Only blocks and scores are kept, on the device they are on, until they are asked for; the host
does not wait for the device meanwhile. A trace sees the feeds of its own thread.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from contextvars import Token
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from torch import Tensor

from inf_llm.attention.base import LayerAttention, Running, Watcher, running
from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.errors import UnsupportedModelError
from inf_llm.hf.cache import MemoryCache
from inf_llm.hf.patch import patched
from inf_llm.settings import InfLLMSettings

Span = tuple[int, int]
"""Positions [start, end) of tokens in their row; padding is not counted."""


@dataclass(frozen=True)
class Recall:
    """What one layer recalled for one row, or for one chooser of it where there are several.

    Attributes:
        layer: number of the layer.
        row: row of the batch.
        head: number of the chooser, such as the query head; None where all heads chose together.
        first, last: the tokens [first, last) that chose: an execution block.
        token: which generated token was being predicted, from 0; None while a prompt is read.
        blocks: numbers of the recalled blocks, ascending.
        scores: what each scored, in that order; None where there were so few that all were taken.
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
        """1 for the best block, down to 1/k for the last of k; all 1/2 where none was chosen.

        Scores of different layers do not compare, ranks do.
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
    """A block, and how much it was recalled.

    Attributes:
        block: its number in the row.
        start, end: its tokens.
        score: mean of `Recall.weights` over all tokens, layers and heads that were looked at: 1
            where each of them ranked it first, 0 where none recalled it.
        count: how many of them recalled it.
        layers: layers that recalled it, ascending.
    """

    block: int
    start: int
    end: int
    score: float
    count: int
    layers: tuple[int, ...]

    def text(self, ids: Sequence[int] | Tensor, tokenizer: Any) -> str:
        """The words of the block, from the ids of its row (without padding)."""
        return str(tokenizer.decode(ids[self.start : self.end], skip_special_tokens=True))


@dataclass(frozen=True)
class _Seen:
    """One execution block as it was seen; tensors are (B, X, k)."""

    layer: int
    row: int
    first: int
    last: int
    token: int | None
    blocks: Tensor
    scores: Tensor | None


class trace(Watcher):  # noqa: N801 (used like a function)
    """Records what a model recalls while it reads and generates, within a `with` statement.

    Args:
        model: a model patched with type inf-llm.
        prompts: look at prompts too, not only at generated tokens.
        session: look only at what feeds this cache, of one row, as the answer to a prompt of so
            many tokens. Without it, at all that the thread feeds within the statement.

    Raises:
        UnsupportedModelError: the model recalls nothing.
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
        self._token = running.set(replace(now, watchers=(*now.watchers, self)))
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

    def enters(self, patch: object, layer: int, rows: Any, prompt_end: int | None) -> None:
        """See `Watcher`."""
        self._layer = layer if patch is self._patch else None
        self._rows, self._prompt_end = rows, prompt_end
        if self._only is not None and self._layer is not None:
            held: list[Any] = self._only[0].layers
            self._rows, self._prompt_end = held[layer].rows, self._only[1]

    def saw(self, attention: LayerAttention, first: int, last: int) -> None:
        """See `Watcher`."""
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
        """Which generated token the last of the tokens before `end` predicts."""
        if self._prompt_end is None or end < self._prompt_end:
            return None
        return end - self._prompt_end

    @functools.cached_property
    def recalls(self) -> tuple[Recall, ...]:
        """All that was seen, in the order it happened."""
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
        """The tokens of a block."""
        start = self.settings.n_init + block * self.settings.block_size
        return start, start + self.settings.block_size

    @property
    def tokens(self) -> int:
        """Generated tokens seen."""
        return max((seen.token + 1 for seen in self._seen if seen.token is not None), default=0)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that recalled something, ascending."""
        return tuple(sorted({seen.layer for seen in self._seen}))

    def passages(
        self, row: int = 0, layer: int | None = None, token: int | None = None
    ) -> list[Passage]:
        """What was recalled for generated tokens, the most recalled first.

        Args:
            row: of the batch.
            layer: only this one.
            token: only for this generated token.
        """
        return rank(self.generated(row, layer, token))

    def generated(
        self, row: int = 0, layer: int | None = None, token: int | None = None
    ) -> list[Recall]:
        """Recalls for generated tokens; arguments as of `passages`."""
        return [
            recall
            for recall in self.recalls
            if recall.row == row
            and recall.token is not None
            and layer in (None, recall.layer)
            and token in (None, recall.token)
        ]


def rank(recalls: Sequence[Recall]) -> list[Passage]:
    """The blocks of some recalls, the most recalled first."""
    spans = spans_of(recalls)
    return [
        Passage(found.group, *spans[found.group], found.score, found.count, found.layers)
        for found in tally(recalls, {block: block for block in spans})
    ]


def spans_of(recalls: Iterable[Recall]) -> dict[int, Span]:
    """The tokens of every block that was recalled."""
    return {
        block: span
        for recall in recalls
        for block, span in zip(recall.blocks, recall.spans, strict=True)
    }


@dataclass(frozen=True)
class Tally:
    """How much a group of blocks was recalled: `score`, `count` and `layers` as of `Passage`.

    What recalled several of the group counts once, with the largest weight.
    """

    group: int
    score: float
    count: int
    layers: tuple[int, ...]


def tally(recalls: Sequence[Recall], groups: Mapping[int, int]) -> list[Tally]:
    """Groups of blocks, the most recalled first; `groups` are by block."""
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
    """The largest weight that a recall gave to a block of each group."""
    best: dict[int, float] = {}
    for block, weight in zip(recall.blocks, recall.weights, strict=True):
        if block in groups:
            group = groups[block]
            best[group] = max(weight, best.get(group, 0.0))
    return best
