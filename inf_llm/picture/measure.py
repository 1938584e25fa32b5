"""Measurement of the keys that tokens see, on the attention objects themselves.

A synthetic text is fed to a real layer. Values are one-hot, so that the output contains the
attention weight of each key. Queries and keys contain one pair of dimensions that rotates slowly;
its part of a score falls with the distance that the layer puts between them. So the measurement
gives the keys that are seen, and the distance at which each of them *seems* to be. Tokens also have
topics that recur, which retrieval can find.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inf_llm.attention.base import LayerAttention, Rule
from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.errors import SettingsError
from inf_llm.kernels import Scoring
from inf_llm.rope import Rope
from inf_llm.settings import OriginSettings, WindowSettings
from inf_llm.variants import ATTENTION

NOTHING, WINDOW, SINK, RECALLED, OTHER = range(5)
KINDS = ("nothing", "local window", "sinks", "recalled blocks", "not in a block yet")
LONGEST = 32768

_TOPICS = 24  # number of content dimensions; topics are directions in them
_CONTENT = 1.5  # scale of the content in a score
_SHARP = 16.0  # scale of the distance in a score


@dataclass(frozen=True)
class Sight:
    """The keys that tokens of a text see, measured for every `stride`-th query and key.

    Attributes:
        settings: the settings of the attention type.
        length: tokens of the text.
        stride: tokens between one row or column and the next.
        kind: (n, n) int8, queries by keys: one of the five constants above.
        distance: (n, n) int32, distance at which the key seems to be; -1 if it is not seen.
    """

    settings: OriginSettings
    length: int
    stride: int
    kind: Tensor
    distance: Tensor


@torch.no_grad()
def measure(settings: OriginSettings, length: int, cells: int = 512) -> Sight:
    """Feed a synthetic text and measure the keys that each query sees.

    Args:
        settings: settings of any attention type; those for rotary positions are ignored.
        length: tokens of the text.
        cells: most rows and columns to measure.

    Raises:
        SettingsError: the length cannot be drawn.
    """
    if not 2 <= length <= LONGEST:
        raise SettingsError(f"length = {length} cannot be drawn: from 2 to {LONGEST} tokens can be")
    stride = math.ceil(length / cells)
    at = torch.arange(0, length, stride)
    content, frequency = _content(length), math.pi / 2 / length
    q, k = (_with_pair(content, angle) for angle in (math.pi / 4, 0.0))
    v = torch.zeros(length, len(at))
    v[at, torch.arange(len(at))] = 1
    rope = Rope(torch.tensor([frequency], dtype=torch.float64))
    layer: LayerAttention = ATTENTION.get(settings.type)(rope, settings)
    far = _record_far(layer)
    text = [x[None, None] for x in (q, k, v)]  # one row, one head
    weights = layer.attend(text[0], text[1], text[2], Rule(Scoring(1.0)))[0, 0, at]
    kind = _kinds(settings, at, weights > 0, far(at))
    distance = _distance(weights, content[at], frequency)
    # A query may see a key in its window and again as a far key; then the nearer place counts.
    distance = torch.where(kind == WINDOW, at[:, None] - at, distance)
    return Sight(settings, length, stride, kind, torch.where(kind == NOTHING, -1, distance).int())


def _record_far(layer: LayerAttention) -> Callable[[Tensor], Tensor]:
    """Record the blocks that a layer recalls.

    Returns:
        A function from positions (n,) to a mask (n, n): the keys, at these positions, that lie in
        the blocks recalled for the queries at the same positions.
    """
    if not isinstance(layer, InfLLMAttention):
        return lambda at: torch.ones(len(at), len(at), dtype=torch.bool)
    settings, execute = layer.settings, layer._execute
    blocks: list[tuple[int, set[int]]] = []  # (end of the execution block, blocks)

    def recording(q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        o = execute(q, k, v, rule)
        chosen = [] if layer.recalled is None else layer.recalled.blocks.flatten().tolist()
        blocks.append((layer.seen + q.shape[2], set(chosen)))
        return o

    layer._execute = recording  # type: ignore[method-assign]

    def recalled(at: Tensor) -> Tensor:
        block = ((at - settings.n_init).div(settings.block_size, rounding_mode="floor")).tolist()
        rows, step = [], iter(blocks)
        end, chosen = next(step)
        for query in at.tolist():
            while query >= end:
                end, chosen = next(step)
            rows.append([number in chosen for number in block])
        return torch.tensor(rows)

    return recalled


def _kinds(settings: OriginSettings, at: Tensor, seen: Tensor, recalled: Tensor) -> Tensor:
    """Return why each key is seen (n, n): the first of window, sink, recalled, other that holds."""
    kind = torch.full(seen.shape, OTHER, dtype=torch.int8)
    kind[recalled] = RECALLED
    if isinstance(settings, WindowSettings):
        kind[(at < settings.n_init).expand_as(kind)] = SINK
        kind[at[:, None] - at < settings.n_local] = WINDOW
    else:
        kind[:] = WINDOW
    return kind.masked_fill(~seen, NOTHING)


def _content(length: int) -> Tensor:
    """Return content (length, _TOPICS): stretches of nine topics, then of random ones of them."""
    draw = torch.Generator().manual_seed(3)
    stretch = math.ceil(length / 32)
    topics = torch.randn(9, _TOPICS, generator=draw)
    topics = topics / topics.norm(dim=1, keepdim=True)
    order = torch.tensor([*range(9), *torch.randint(9, (40,), generator=draw).tolist()])
    content = topics[order].repeat_interleave(stretch, 0)[:length]
    noise = 0.05 * torch.randn(length, _TOPICS, generator=draw)
    return math.sqrt(_CONTENT) * (content + noise)


def _with_pair(content: Tensor, angle: float) -> Tensor:
    """Return (length, 2 + _TOPICS): before the content, a pair that rotates with the position."""
    pair = math.sqrt(_SHARP) * torch.tensor([math.cos(angle), math.sin(angle)])
    # `Rope` pairs the two halves of the rotated dimensions: with one pair, the first two.
    return torch.cat((pair.expand(len(content), 2), content), 1)


def _distance(weights: Tensor, content: Tensor, frequency: float) -> Tensor:
    """Return integer distances (n, n), from ratios of attention weights: differences of scores.

    A score is the sum of the content's part and `_SHARP * cos(frequency * distance + pi / 4)`,
    which falls over the whole length.
    """
    diagonal = weights.diagonal()[:, None].double()
    product = (content @ content.T).double()
    ratio = torch.log(weights.double() / diagonal) - (product - product.diagonal()[:, None])
    cosine = (ratio / _SHARP + math.cos(math.pi / 4)).clamp(-1, 1)
    distance = (torch.acos(cosine) - math.pi / 4) / frequency
    return distance.nan_to_num(-1).round().int()
