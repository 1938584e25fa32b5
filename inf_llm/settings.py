"""The settings of the four attention types: typed, frozen, and checked together when they are made.

One dataclass per type, each adding to the one before: `OriginSettings` (the position rule),
`WindowSettings` (sinks and a local window), `InfLLMSettings` (memory blocks). A setting that a type
would not use is not a field of it, so it cannot be given and then ignored.
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
"""With prefill "auto", how many times the tokens that a query sees are read densely: so many of
SmolLM2 took 1.2 times as long as read sparsely (docs/results.md)."""


@dataclass(frozen=True)
class InfiniteLMSettings(WindowSettings):
    """LM-Infinite: sinks seen as if at distance n_local - 1, all of them at the same place.

    Attributes:
        topk_middle: tokens between sinks and window that a query and head may choose besides; 0
            for none. With them memory grows with the length of the text, and time with its square.
        middle_from_layer: first layer, counted from 0, that chooses such tokens.
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
        """See `OriginSettings.for_layer`; layers below `middle_from_layer` choose nothing."""
        if index >= self.middle_from_layer:
            return self
        return replace(self, topk_middle=0, middle_from_layer=0)


@dataclass(frozen=True)
class StreamLMSettings(WindowSettings):
    """StreamingLLM: sinks keep their own order, just behind the window."""

    type: ClassVar[str] = "stream-lm"


@dataclass(frozen=True)
class InfLLMSettings(WindowSettings):
    """InfLLM: tokens older than the window go into blocks, a few of which are recalled each step.

    Attributes:
        block_size: tokens in a block (memory unit).
        topk: blocks recalled per execution block and unit.
        summary: what a block is found by: "pages", means of every `page_size` neighbouring keys, of
            which the best one counts; "mean", the mean of all its keys; or "most-attended", the
            mean key of its `tokens` with the most attention mass, as published.
        selection: who chooses blocks: "layer", all heads of a layer together, "key-head", those
            that share a key head, or "query-head", every query head for itself. The option `scores`
            says how scores of heads are added: "softmax", as shares of attention, or "sum", as they
            are. Without a summary, `repr_topk`, `perhead`, `faiss` or `chunk_topk_calc` mean the
            published rule: "most-attended" keys and "sum".
        far_positions: where sinks, recalled blocks and all else out of the window stand:
            "one-distance", all n_local - 1 away, "contiguous", in order behind the window without
            gaps, or "native", where they stood, for texts within the trained length.
        max_cached_block: blocks per unit that the device holds at once.
        exc_block_size: tokens that retrieve together while a prompt is read.
        eviction: which block leaves the device first: "lru", "fifo" or "lru-s".
        index: how blocks are searched for; None takes "torch" for sums of products, "two-stage" for
            pages or softmax. "torch" is one exact product ("int8" is another name for it), "faiss"
            is exact through faiss, "ivf" reads only a part of many blocks. "two-stage" scores all
            blocks by their means, and the best of them, `shortlist` times as many as are recalled,
            by their pages.
        codec: how sealed blocks are kept: "raw", as they are; "int8", in 8 bits, or "int4", in 4,
            with keys scaled per channel of a block and values per token. Sinks, window and
            summaries stay as they are.
        async_global_stream: on CUDA, fetch recalled blocks while the window is computed.
        tier: where sealed blocks are: "host", in memory, "pinned", in page-locked memory, or
            {name: disk, path: FOLDER, host_bytes: 4GiB}, in a file, with those that were read last
            in memory; None takes "pinned" on CUDA with `pin_memory`, else "host".
        pin_memory: on CUDA, keep sealed blocks in pinned host memory.
        decode_graph: on CUDA, each layer's decode step as one graph; not offered yet.
        reselect_every: decode steps that share one choice of blocks; 1 chooses anew each step.
        prefill: how a prompt is read: "sparse", with window and recalled blocks, in linear time;
            "dense", with full attention over all that is kept, in quadratic time, so that only
            answers depend on what is recalled; "auto", dense up to `dense_up_to` tokens and sparse
            behind them. Its last token is read as an answer is written, with `split_last`.
        dense_up_to: with prefill "auto", tokens of a text that are read with full attention: not
            more than the model was trained with. None takes four times the tokens that a query
            sees, or the trained length if that is less.
        split_last: give the last prompt token, and every token after it, an execution block of
            its own, so that an answer's first token retrieves with its own query.
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
        """See `OriginSettings.sees`; while a prompt is read densely, all of it."""
        return max(self._visible, self.dense_tokens)

    @property
    def dense_tokens(self) -> int:
        """First tokens of a text that are read with full attention."""
        if self.prefill == "auto":
            return self.dense_up_to or DENSE_FOR * self._visible
        return LARGEST if self.prefill == "dense" else 0

    @property
    def _visible(self) -> int:
        """Tokens that a query sees where a prompt is read sparsely."""
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
    """The settings of an attention type; underscores and published spellings are accepted."""
    name = str(type_name).replace("_", "-").lower()
    name = _OTHER_SPELLINGS.get(name, name)
    if name not in ATTENTION:
        message = f"type = {type_name!r} is not an attention type; {accepted(name, ATTENTION)}"
        raise SettingsError(message, "type")
    found: type[OriginSettings] = ATTENTION.options(name)
    return found


def make_settings(type: str = "inf-llm", **values: Any) -> OriginSettings:
    """Checked settings from keyword arguments, as `patch` and `replay` take them.

    Raises:
        SettingsError: a name is unknown, belongs to another type, or has a value out of range.
    """
    cls = settings_class(type)
    for key in values:
        problem = key_problem(key, cls)
        require(problem is None, key, problem or "")
    return cls(**translated(values))


def key_types(cls: type[OriginSettings]) -> FieldTypes:
    """The types of the keys that may be given with a type, published spellings included."""
    return field_types(cls) | published_keys(cls.choices)


def key_problem(key: str, cls: type[OriginSettings], also: Iterable[str] = ()) -> str | None:
    """Why `key` cannot be given with this type; None where it can, or is one of `also`."""
    known = {*key_types(cls), *also}
    if key in known:
        return None
    owners = [name for name in ATTENTION if key in key_types(settings_class(name))]
    if owners:
        return f"{key} has no effect with type {cls.type!r}; it belongs to {', '.join(owners)}"
    return f"{key} is not a setting of type {cls.type!r}; {accepted(key, known)}"


def to_plain(settings: OriginSettings) -> dict[str, Any]:
    """Settings by name as a file says them, in plain types."""
    values = {each.name: getattr(settings, each.name) for each in dataclasses.fields(settings)}
    return {key: v.plain() if isinstance(v, Choice) else v for key, v in values.items()}
