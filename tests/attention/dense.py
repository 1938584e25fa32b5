"""The four attention types said a second time: float64, one head and one query at a time.

Written from the rules and not from the package, of which nothing is used here, so that the two can
be wrong only separately. It is O(n^2) and slow, and has no state: what a query sees is computed
from positions alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Numbers = NDArray[np.intp]


@dataclass(frozen=True)
class Turn:
    """Rotary positions: pair r of the turned span moves `scale * base ** (-r / pairs)` a token.

    Attributes:
        base: RoPE base; None for a layer without positions.
        scale: factor on every position.
        start: first dimension of the turned span.
        span: number of turned dimensions; None for all from `start` on.
        amplitude: factor on the turned span.
        interleaved: pairs are neighbours, not halves.
    """

    base: float | None = 10000.0
    scale: float = 1.0
    start: int = 0
    span: int | None = None
    amplitude: float = 1.0
    interleaved: bool = False

    def __call__(self, x: Array, position: float | Numbers) -> Array:
        """`x` (..., D) turned to `position`, a number or one for each of the rows of x."""
        if self.base is None:
            return x
        end = x.shape[-1] if self.span is None else self.start + self.span
        part = x[..., self.start : end]
        pairs = part.shape[-1] // 2
        real, imaginary = np.arange(pairs), np.arange(pairs) + pairs
        if self.interleaved:
            real, imaginary = 2 * np.arange(pairs), 2 * np.arange(pairs) + 1
        speed = self.scale * self.base ** (-np.arange(pairs) / pairs)
        turned = part[..., real] + 1j * part[..., imaginary]
        turned = turned * self.amplitude * np.exp(1j * np.multiply.outer(position, speed))
        out = np.array(x, dtype=np.float64)
        out[..., self.start + real] = turned.real
        out[..., self.start + imaginary] = turned.imag
        return out


@dataclass(frozen=True)
class Score:
    """How a model makes a softmax: scale (None for 1/sqrt(D)), soft cap, learned sink per head."""

    scale: float | None = None
    softcap: float | None = None
    sink: Array | None = None


@dataclass
class Answer:
    """What should come out.

    Attributes:
        o: outputs (B, H, N, Dv).
        topk: per execution block, the blocks chosen by every unit, ascending.
        representatives: (B, H, blocks, D) at the end.
        deficit: the most by which a block that was left out beats one that was taken; 0 unless
            the choice came from outside.
        mass_gap: the least difference of attention mass that decided what represents a block;
            where it is tiny, rounding may choose otherwise.
        score_gap: the same of the scores that decided which blocks were chosen.
    """

    o: Array
    topk: list[list[list[int]]] = field(default_factory=list)
    representatives: Array | None = None
    deficit: float = 0.0
    mass_gap: float = np.inf
    score_gap: float = np.inf


def execution_blocks(feeds: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Tokens [first, last) of every execution block, counted from each feed's start."""
    begin = 0
    for feed in feeds:
        for first in range(begin, begin + feed, size):
            yield first, min(first + size, begin + feed)
        begin += feed


class Sight:
    """Scores of one batch row: q (H, N, D), k (G, N, D)."""

    def __init__(self, q: Array, k: Array, turn: Turn, score: Score) -> None:
        self.q, self.k, self.turn, self.score = q, k, turn, score
        self.shared = q.shape[0] // k.shape[0]
        places = np.arange(q.shape[1])
        self.near_q = np.stack([turn(head, places) for head in q])
        self.near_k = np.stack([turn(head, places) for head in k])
        self.still_k = turn(k, 0)
        self.scale = q.shape[2] ** -0.5 if score.scale is None else score.scale

    def near(self, h: int, i: int, first: int) -> Array:
        """Query i of head h and keys first..i at their true distances."""
        return self._capped(self.near_k[h // self.shared, first : i + 1] @ self.near_q[h, i])

    def far(self, h: int, i: int, keys: Numbers, distance: float) -> Array:
        """Query i of head h moved to `distance`, and `keys` moved to 0."""
        still = self.still_k[h // self.shared, keys]
        return self._capped(still @ self.turn(self.q[h, i], distance))

    def in_order(self, h: int, i: int, keys: Numbers, position: float) -> Array:
        """Query i of head h moved to `position`, and `keys` where they are."""
        placed = self.near_k[h // self.shared, keys]
        return self._capped(placed @ self.turn(self.q[h, i], position))

    def in_a_row(self, h: int, i: int, keys: Numbers, gap: int) -> Array:
        """Keys moved to 0, 1, ... and query i of head h to `gap` behind the last of them."""
        placed = self.turn(self.k[h // self.shared, keys], np.arange(len(keys)))
        return self._capped(placed @ self.turn(self.q[h, i], len(keys) - 1 + gap))

    def _capped(self, products: Array) -> Array:
        scores = products * self.scale
        if self.score.softcap is not None:
            scores = self.score.softcap * np.tanh(scores / self.score.softcap)
        return scores

    def softmax(self, h: int, scores: Array) -> Array:
        """Probabilities; the learned sink takes its share and gives nothing."""
        sink = [] if self.score.sink is None else [self.score.sink[h]]
        highest = max([scores.max(), *sink])
        rest = sum(np.exp(value - highest) for value in sink)
        weights = np.exp(scores - highest)
        return weights / (weights.sum() + rest)


def dense(
    q: object,
    k: object,
    v: object,
    *,
    kind: str,
    feeds: Sequence[int],
    turn: Turn | None = None,
    score: Score | None = None,
    chosen: list[list[list[int]]] | None = None,
    **settings: Any,
) -> Answer:
    """Outputs of an attention type for q (B, H, N, D), k (B, G, N, D), v (B, G, N, Dv).

    `chosen` forces the recalled blocks, one list per execution block and unit; then `deficit`
    says how much better a choice there would have been.
    """
    queries, keys, values = (np.asarray(x, dtype=np.float64) for x in (q, k, v))
    B, H, N, _ = queries.shape
    answer = Answer(np.zeros((B, H, N, values.shape[3])))
    rows = []
    for b in range(B):
        sight = Sight(queries[b], keys[b], turn or Turn(), score or Score())
        if kind == "inf-llm":
            per_row = H if settings.get("perhead") else 1
            mine = chosen and [step[b * per_row : (b + 1) * per_row] for step in chosen]
            rows.append(_Memory(sight, values[b], answer, mine or None, **settings))
            rows[-1].run(answer.o[b], feeds)
        else:
            _windowed(sight, values[b], answer.o[b], kind, **settings)
    if rows:
        steps = zip(*(row.topk for row in rows), strict=True)
        answer.topk = [list(itertools.chain.from_iterable(step)) for step in steps]
        answer.representatives = np.stack([row.representatives() for row in rows])
    return answer


def _windowed(
    sight: Sight, v: Array, o: Array, kind: str, n_init: int = 0, n_local: int | None = None
) -> None:
    for h, i in np.ndindex(o.shape[:2]):
        first = 0 if n_local is None else max(0, i - n_local + 1)
        seen = np.arange(first, i + 1)
        scores = sight.near(h, i, first)
        if n_local is not None:
            sinks = np.arange(max(0, min(n_init, i - n_local + 1)))
            if kind == "infinite-lm":
                far = sight.far(h, i, sinks, n_local - 1)
            else:
                far = sight.in_order(h, i, sinks, n_local + n_init - 1)
            seen, scores = np.concatenate((sinks, seen)), np.concatenate((far, scores))
        o[h, i] = sight.softmax(h, scores) @ v[h // sight.shared, seen]


class _Memory:
    """inf-llm, one batch row."""

    def __init__(
        self,
        sight: Sight,
        v: Array,
        answer: Answer,
        chosen: list[list[list[int]]] | None,
        *,
        n_init: int,
        n_local: int,
        block_size: int,
        topk: int,
        repr_topk: int,
        exc_block_size: int,
        perhead: bool = False,
        far_positions: str = "one-distance",
        reselect_every: int = 1,
        **_only_traffic: object,
    ) -> None:
        self.sight, self.v, self.answer, self.chosen = sight, v, answer, chosen
        self.n_init, self.n_local, self.size = n_init, n_local, block_size
        self.k_best, self.repr_topk, self.step = topk, repr_topk, exc_block_size
        self.every, self.decoded = reselect_every, 0
        self.rule = far_positions
        heads = range(sight.q.shape[0])
        self.units = [[h] for h in heads] if perhead else [list(heads)]
        self.mass = np.zeros(sight.q.shape[:2])
        self.topk: list[list[list[int]]] = []
        self.known: dict[tuple[int, int], Array] = {}
        self.fed = 0

    def blocks(self, fed: int) -> int:
        """Blocks that exist once the first `fed` tokens are through."""
        return max(0, fed - self.n_local - self.n_init) // self.size

    def tokens(self, block: int) -> Numbers:
        return self.n_init + block * self.size + np.arange(self.size)

    def run(self, o: Array, feeds: Sequence[int]) -> None:
        for a, b in execution_blocks(feeds, self.step):
            chosen = self.topk[-1] if self.keeps_choice(a, b) else self.choose(a, b)
            self.decoded = self.decoded + 1 if b - a == 1 else 0
            self.topk.append(chosen)
            for unit, blocks in zip(self.units, chosen, strict=True):
                far = self.far_tokens(a, b, blocks)
                for h in unit:
                    for i in range(a, b):
                        o[h, i] = self.output(h, i, far)
            self.fed = b

    def keeps_choice(self, a: int, b: int) -> bool:
        """Decode steps since the last longer feed may share a choice, if there was one."""
        chose = bool(self.topk) and bool(self.topk[-1][0])
        return chose and b - a == 1 and self.decoded % self.every > 0

    def far_tokens(self, a: int, b: int, chosen: list[int]) -> Numbers:
        """All that the block's last query has lost from its window, less blocks not recalled."""
        lost = np.arange(max(0, b - self.n_local))
        sealed = (lost >= self.n_init) & (lost < self.n_init + self.blocks(a) * self.size)
        recalled = [self.tokens(block) for block in chosen]
        return np.sort(np.concatenate([lost[~sealed], *recalled]).astype(int))

    def output(self, h: int, i: int, far: Numbers) -> Array:
        first = max(0, i - self.n_local + 1)
        near = self.sight.near(h, i, first)
        if self.rule != "one-distance":
            far = far[far < first]
        scores = np.concatenate((near, self.far_scores(h, i, far)))
        weights = self.sight.softmax(h, scores)
        self.mass[h, first : i + 1] += weights[: len(near)]
        seen = np.concatenate((np.arange(first, i + 1), far))
        return weights @ self.v[h // self.sight.shared, seen]

    def far_scores(self, h: int, i: int, far: Numbers) -> Array:
        """Scores of query i and tokens `far`, ascending, which stand where the rule says."""
        if self.rule == "native":
            return self.sight.in_order(h, i, far, i)
        if self.rule == "contiguous":
            return self.sight.in_a_row(h, i, far, self.n_local)
        return self.sight.far(h, i, far, self.n_local - 1)

    def choose(self, a: int, b: int) -> list[list[int]]:
        count = self.blocks(a)
        wanted = min(self.k_best, count)
        forced = self.chosen[len(self.topk)] if self.chosen is not None else None
        choices = []
        for u, unit in enumerate(self.units):
            scores = np.array([self.match(unit, block, a, b) for block in range(count)])
            best = sorted(np.argsort(-scores, kind="stable")[:wanted].tolist())
            taken = best if forced is None else forced[u]
            assert len(taken) == wanted, f"{len(taken)} blocks were recalled, not {wanted}"
            assert sorted(set(taken)) == taken, f"recalled blocks {taken} do not ascend"
            left = [block for block in range(count) if block not in taken]
            if taken and left:
                gap = scores[taken].min() - scores[left].max()
                self.answer.deficit = max(self.answer.deficit, -gap)
                self.answer.score_gap = min(self.answer.score_gap, abs(gap))
            choices.append(taken)
        return choices

    def match(self, unit: list[int], block: int, a: int, b: int) -> float:
        queries = self.sight.q[unit, a:b].mean(1)
        keys = np.stack([self.representative(h, block) for h in unit])
        # A key that stands at 0 is not turned, but has the amplitude of one that is.
        moved, still = self.sight.turn(queries, self.n_local - 1), self.sight.turn(keys, 0)
        return float((moved * still).sum())

    def representative(self, h: int, block: int) -> Array:
        if (h, block) not in self.known:
            self.known[h, block] = self.represent(h, block)
        return self.known[h, block]

    def represent(self, h: int, block: int) -> Array:
        """Asked only once the block's tokens have left every window: their mass is final."""
        tokens = self.tokens(block)
        mass = self.mass[h, tokens]
        order = np.argsort(-mass, kind="stable")
        if self.repr_topk < self.size:
            gap = mass[order[self.repr_topk - 1]] - mass[order[self.repr_topk]]
            self.answer.mass_gap = min(self.answer.mass_gap, gap)
        return self.sight.k[h // self.sight.shared, tokens[order[: self.repr_topk]]].mean(0)

    def representatives(self) -> Array:
        count = self.blocks(self.fed)
        heads = range(self.sight.q.shape[0])
        shape = (len(heads), count, self.sight.k.shape[2])
        found = [self.representative(h, block) for h in heads for block in range(count)]
        return np.array(found).reshape(shape)
