"""The settings of the four attention types: typed, frozen, and checked together when they are made.

Each dataclass adds fields to the one before: `OriginSettings` (the position rule),
`WindowSettings` (sinks and a local window), `InfLLMSettings` (memory blocks). A type has a field
only for settings that it uses, so no setting is silently ignored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from inf_llm.base_settings import OriginSettings, WindowSettings
from inf_llm.checks import LARGEST, FieldTypes, at_least, field_types, one_of, require
from inf_llm.choice import Choice
from inf_llm.errors import SettingsError
from inf_llm.published import published_keys, translated
from inf_llm.registry import Registry, accepted
from inf_llm.variants import (
    ATTENTION,
    CODEC,
    EVICTION,
    FAR_POSITIONS,
    INDEX,
    SELECTION,
    SUMMARY,
    TIER,
)

PREFILLS = ("sparse", "dense", "auto")
_LRU, _RAW = map(Choice, ("lru", "raw"))
_PAGES, _LAYER = map(Choice, ("pages", "layer"))
_ONE_DISTANCE = Choice("one-distance")

DENSE_FOR = 4
"""With prefill "auto", the number of tokens that are read densely, as a multiple of the tokens that
a query attends to. That many tokens took SmolLM2 1.2 times as long as reading them sparsely
(docs/results.md)."""


@dataclass(frozen=True)
class InfiniteLMSettings(WindowSettings):
    """LM-Infinite: all sinks have the same position, at distance n_local - 1 from each query.

    Attributes:
        topk_middle: number of tokens between the sinks and the window that each query of each head
            also selects; 0 for none. With more than 0, memory grows with the length of the text,
            and time with its square.
        middle_from_layer: first layer, counted from 0, that selects such tokens.
    """

    type: ClassVar[str] = "infinite-lm"

    topk_middle: int = 0
    middle_from_layer: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "topk_middle", "middle_from_layer")
        require(
            self.topk_middle > 0 or self.middle_from_layer == 0,
            "middle_from_layer",
            f"middle_from_layer = {self.middle_from_layer} has no effect with topk_middle = 0: "
            "leave it out, or set topk_middle",
        )

    @property
    def sees(self) -> int:
        """See `OriginSettings.sees`."""
        return super().sees + self.topk_middle

    def for_layer(self, index: int) -> InfiniteLMSettings:
        """See `OriginSettings.for_layer`; layers below `middle_from_layer` select no tokens."""
        if index >= self.middle_from_layer:
            return self
        return replace(self, topk_middle=0, middle_from_layer=0)


@dataclass(frozen=True)
class StreamLMSettings(WindowSettings):
    """StreamingLLM: the sinks keep their order, at positions directly before the window."""

    type: ClassVar[str] = "stream-lm"


@dataclass(frozen=True)
class InfLLMSettings(WindowSettings):
    """InfLLM: tokens older than the window go into blocks, and each step recalls a few blocks.

    Attributes:
        block_size: number of tokens in a block (memory unit).
        topk: number of blocks recalled per execution block, for each row and each group of heads
            that selects blocks together (see `selection`).
        summary: the vectors of a block that are compared with a query: "pages", the mean of every
            `page_size` neighbouring keys, where the best page counts; "mean", the mean of all keys;
            or "most-attended", the mean key of the `tokens` with the most attention mass, as
            published.
        selection: the heads that select blocks together: "layer", all heads of a layer; "key-head",
            the query heads that share a key head; or "query-head", each query head by itself. The
            option `scores` is the way to add the scores of heads: "softmax", as shares of
            attention, or "sum", as raw scores. If `summary` is not given, `repr_topk`, `perhead`,
            `faiss` or `chunk_topk_calc` select the published rule: "most-attended" keys and "sum".
        far_positions: the positions of sinks, recalled blocks and all other tokens outside the
            window: "one-distance", all at distance n_local - 1; "contiguous", in order directly
            before the window, without gaps; or "native", as in the text, for texts within the
            trained length.
        max_cached_block: number of blocks that the device holds at once, for each row and each
            group of heads that selects blocks together.
        exc_block_size: number of prompt tokens that retrieve blocks together (an execution block).
        eviction: the rule for the block that leaves the device first: "lru", "fifo" or "lru-s".
        index: the search for blocks; None takes "torch" for sums of products and "two-stage" for
            pages or softmax. "torch" is one exact product ("int8" is another name for "torch"),
            "faiss" is exact and uses faiss, "ivf" searches only a part of the blocks if there are
            many. "two-stage" scores all blocks by their means, and then the best of them,
            `shortlist` times as many as are recalled, by their pages.
        codec: the format of sealed blocks: "raw", unchanged; "int8", in 8 bits; or "int4", in 4
            bits, with keys scaled per channel of a block and values per token. Sinks, window and
            summaries stay unchanged.
        async_global_stream: on CUDA, fetch recalled blocks while attention to the window is
            computed.
        tier: the place of sealed blocks: "host", in host memory; "pinned", in page-locked host
            memory; or {name: disk, path: FOLDER, host_bytes: 4GiB}, in a file, with the blocks
            read last in host memory. None takes "pinned" on CUDA with `pin_memory`, otherwise
            "host".
        pin_memory: on CUDA, keep sealed blocks in page-locked (pinned) host memory.
        decode_graph: on CUDA, run the decoding step of each layer as one CUDA graph; not offered
            yet.
        reselect_every: number of decoding steps that share one selection of blocks; 1 selects
            blocks in every step.
        prefill: the attention while a prompt is read: "sparse", the window and recalled blocks, in
            linear time; "dense", full attention over all kept tokens, in quadratic time, so that
            only answers depend on the recalled blocks; "auto", dense for the first `dense_up_to`
            tokens and sparse after them. With `split_last`, the last token of the prompt is read
            as in decoding.
        dense_up_to: with prefill "auto", number of tokens of a text that are read with full
            attention; at most the trained length of the model. None takes four times the tokens
            that a query attends to, or the trained length if that is less.
        split_last: give the last prompt token, and every token after it, an execution block of
            its own, so that the first token of an answer is computed from blocks retrieved with
            the query of the last prompt token alone.
    """

    type: ClassVar[str] = "inf-llm"
    choices: ClassVar[Mapping[str, Registry]] = {
        **WindowSettings.choices,
        "summary": SUMMARY,
        "selection": SELECTION,
        "far_positions": FAR_POSITIONS,
        "eviction": EVICTION,
        "index": INDEX,
        "codec": CODEC,
        "tier": TIER,
    }

    block_size: int = 32
    topk: int = 64
    summary: Choice = _PAGES
    selection: Choice = _LAYER
    far_positions: Choice = _ONE_DISTANCE
    max_cached_block: int = 128
    exc_block_size: int = 512
    eviction: Choice = _LRU
    index: Choice | None = None
    codec: Choice = _RAW
    tier: Choice | None = None
    async_global_stream: bool = False
    pin_memory: bool = True
    decode_graph: bool = False
    reselect_every: int = 1
    prefill: str = "sparse"
    dense_up_to: int | None = None
    split_last: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "block_size", "topk", "max_cached_block", "exc_block_size")
        at_least(self, 1, "reselect_every")
        self._require_order("exc_block_size", "n_local", "an execution block must fit the window")
        self._require_order("topk", "max_cached_block", "all recalled blocks are needed at once")
        one_of(self, "prefill", PREFILLS)
        if self.dense_up_to is not None:
            at_least(self, 1, "dense_up_to")
        require(
            self.dense_up_to is None or self.prefill == "auto",
            "dense_up_to",
            f"dense_up_to = {self.dense_up_to} does not go with prefill = {self.prefill!r}, which "
            "has no use for it: set prefill to 'auto', or leave it out",
        )
        require(
            not self.decode_graph,
            "decode_graph",
            "decode_graph = True is not offered until it has run on a GPU: leave it out",
        )
        for key, registry in self._chosen():
            getattr(self, key).check_with(key, registry, self)

    @property
    def sees(self) -> int:
        """See `OriginSettings.sees`; at least the number of tokens that are read densely."""
        return max(self._visible, self.dense_tokens)

    @property
    def dense_tokens(self) -> int:
        """The number of first tokens of a text that are read with full attention."""
        if self.prefill == "auto":
            return self.dense_up_to or DENSE_FOR * self._visible
        return LARGEST if self.prefill == "dense" else 0

    @property
    def _visible(self) -> int:
        """The largest number of tokens that a query attends to in sparse reading and decoding."""
        return super().sees + self.topk * self.block_size

    def _require_order(self, low: str, high: str, because: str) -> None:
        small, large = getattr(self, low), getattr(self, high)
        require(
            small <= large,
            low,
            f"{low} = {small} is more than {high} = {large}, but {because}: "
            f"lower {low} to {large} or raise {high} to {small}",
        )


_OTHER_SPELLINGS = {
    "stream-llm": "stream-lm",
    "streaming-llm": "stream-lm",
    "lm-infinite": "infinite-lm",
}


def settings_class(type_name: str) -> type[OriginSettings]:
    """Return the settings class of a type; underscores and published spellings are accepted."""
    name = str(type_name).replace("_", "-").lower()
    name = _OTHER_SPELLINGS.get(name, name)
    if name not in ATTENTION:
        message = f"type = {type_name!r} is not an attention type; {accepted(name, ATTENTION)}"
        raise SettingsError(message, "type")
    found: type[OriginSettings] = ATTENTION.options(name)
    return found


def make_settings(type: str = "inf-llm", **values: Any) -> OriginSettings:
    """Make checked settings from keyword arguments, as for `patch` and `replay`.

    Raises:
        SettingsError: a name is unknown or belongs to another type, or a value is not valid.
    """
    cls = settings_class(type)
    for key in values:
        problem = key_problem(key, cls)
        require(problem is None, key, problem or "")
    return cls(**translated(values))


def key_types(cls: type[OriginSettings]) -> FieldTypes:
    """Return the value types of all keys of an attention type, published keys included."""
    return field_types(cls) | published_keys(cls.choices)


def key_problem(key: str, cls: type[OriginSettings], also: Iterable[str] = ()) -> str | None:
    """Return an error message if `key` is not a key of this type or one of `also`; else None."""
    known = {*key_types(cls), *also}
    if key in known:
        return None
    owners = [name for name in ATTENTION if key in key_types(settings_class(name))]
    if owners:
        return f"{key} has no effect with type {cls.type!r}; it belongs to {', '.join(owners)}"
    return f"{key} is not a setting of type {cls.type!r}; {accepted(key, known)}"


def to_plain(settings: OriginSettings) -> dict[str, Any]:
    """Return settings by name as in a file, in plain types."""
    values = {each.name: getattr(settings, each.name) for each in dataclasses.fields(settings)}
    return {key: v.plain() if isinstance(v, Choice) else v for key, v in values.items()}
