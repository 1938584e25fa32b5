"""All variants that a configuration can name, one registry per kind.

A row gives the place of a class or function and, if it has options, the place of their dataclass.
A row from outside needs no change of this file:

    from inf_llm.variants import EVICTION
    EVICTION.add("random", RandomPage)              # a class, or "package.module:RandomPage"

or, as an entry point of an installed distribution, which the command line finds too:

    [project.entry-points."inf_llm.variants"]
    "eviction.random" = "package.module:RandomPage"

The options of such a class are the fields of its attribute `Settings`, a frozen dataclass; a class
without `Settings` has no options. The class receives the options as keywords.
"""

from __future__ import annotations

from inf_llm.registry import Registry

ATTENTION = Registry(
    "attention type",
    {
        "origin": ("inf_llm.attention.origin:OriginAttention", "inf_llm.settings:OriginSettings"),
        "infinite-lm": (
            "inf_llm.attention.middle:infinite_lm",
            "inf_llm.settings:InfiniteLMSettings",
        ),
        "stream-lm": (
            "inf_llm.attention.window:StreamLMAttention",
            "inf_llm.settings:StreamLMSettings",
        ),
        "inf-llm": ("inf_llm.attention.inf_llm:InfLLMAttention", "inf_llm.settings:InfLLMSettings"),
    },
    key="attention",
)
"""Callables that take a `Rope` and the settings and return a `LayerAttention`. The options of a row
are the settings of the type: a subclass of `WindowSettings` with the name of the row as `type`.
("origin" alone has `OriginSettings`.)"""

SUMMARY = Registry(
    "block summary",
    {
        "most-attended": ("inf_llm.memory.summary:MostAttended", "inf_llm.options:Tokens"),
        "mean": "inf_llm.memory.summary:Mean",
        "pages": ("inf_llm.memory.summary:Pages", "inf_llm.options:PageSize"),
    },
    key="summary",
)
"""Subclasses of `inf_llm.memory.summary.Summary`."""

SELECTION = Registry(
    "selection",
    {
        "layer": ("inf_llm.memory.selection:LayerSelection", "inf_llm.options:Scores"),
        "key-head": ("inf_llm.memory.selection:KeyHeadSelection", "inf_llm.options:Scores"),
        "query-head": ("inf_llm.memory.selection:QueryHeadSelection", "inf_llm.options:Scores"),
    },
    key="selection",
)
"""Subclasses of `inf_llm.memory.selection.Selection`."""

FAR_POSITIONS = Registry(
    "position rule",
    {
        "one-distance": "inf_llm.attention.positions:OneDistance",
        "contiguous": "inf_llm.attention.positions:Contiguous",
        "native": "inf_llm.attention.positions:Native",
    },
    key="far_positions",
)
"""Subclasses of `inf_llm.attention.positions.FarPositions`."""

EVICTION = Registry(
    "eviction policy",
    {
        "lru": "inf_llm.memory.evict:LeastRecentlyUsed",
        "fifo": "inf_llm.memory.evict:FirstInFirstOut",
        "lru-s": ("inf_llm.memory.evict:LeastScored", "inf_llm.options:Decay"),
    },
    key="eviction",
)
"""Subclasses of `inf_llm.memory.evict.Policy`."""

INDEX = Registry(
    "retrieval index",
    {
        "torch": ("inf_llm.memory.index:TorchIndex", "inf_llm.options:Chunk"),
        "int8": ("inf_llm.memory.index:TorchIndex", "inf_llm.options:Chunk"),  # old name of "torch"
        "faiss": "inf_llm.memory.faiss_index:FaissIndex",
        "ivf": ("inf_llm.memory.faiss_index:InvertedIndex", "inf_llm.options:InvertedFrom"),
        "two-stage": ("inf_llm.memory.two_stage:TwoStage", "inf_llm.options:Shortlist"),
    },
    key="index",
)
"""Subclasses of `inf_llm.memory.index.Index`, or of `inf_llm.memory.search.Search`; the latter take
a `Selection` besides the options."""

CODEC = Registry(
    "codec",
    {
        "raw": "inf_llm.memory.codec:RawCodec",
        "int8": "inf_llm.memory.quantised:Int8Codec",
        "int4": ("inf_llm.memory.quantised:Int4Codec", "inf_llm.options:Group"),
    },
    key="codec",
)
"""Subclasses of `inf_llm.memory.codec.Codec`, which take a `PageShape` and the options."""

TIER = Registry(
    "tier",
    {
        "host": "inf_llm.memory.tiers:HostTier",
        "pinned": "inf_llm.memory.tiers:PinnedTier",
        "disk": ("inf_llm.memory.disk_tier:DiskTier", "inf_llm.options:Disk"),
    },
    key="tier",
)
"""Subclasses of `inf_llm.memory.tiers.Tier`, which take the planes of a page and the options."""

KERNEL = Registry(
    "kernel",
    {
        "fused": "inf_llm.kernels.fused_cpu",
        "triton": "inf_llm.kernels.triton_impl",
        "varlen": "inf_llm.kernels.varlen",
        "flash-attn": "inf_llm.kernels.flash_attn",
        "reference": "inf_llm.kernels.reference",
    },
    key="kernel",
)
"""Modules or objects with the interface in `inf_llm.kernels`; `auto` tries them in this order."""

SCALING = Registry(
    "position scaling",
    {
        "none": "inf_llm.scaling:Unscaled",
        "linear": ("inf_llm.scaling:Linear", "inf_llm.options:Stretch"),
        "ntk": ("inf_llm.scaling:Ntk", "inf_llm.options:Stretch"),
        "yarn": ("inf_llm.scaling:Yarn", "inf_llm.options:YarnStretch"),
    },
    key="scaling",
)
"""Callables that take a `Rope` and return another `Rope`."""

NEEDLE = Registry(
    "needle family",
    {
        "passkey": "inf_llm.needles.retrieval:PASSKEY",
        "number": "inf_llm.needles.retrieval:NUMBER",
        "kv": "inf_llm.needles.retrieval:KV",
        "lines": "inf_llm.needles.retrieval:LINES",
        "niah_single_1": "inf_llm.needles.niah:SINGLE_1",
        "niah_single_2": "inf_llm.needles.niah:SINGLE_2",
        "niah_single_3": "inf_llm.needles.niah:SINGLE_3",
        "niah_multikey_1": "inf_llm.needles.niah:MULTIKEY_1",
        "niah_multikey_2": "inf_llm.needles.niah:MULTIKEY_2",
        "niah_multikey_3": "inf_llm.needles.niah:MULTIKEY_3",
        "niah_multivalue": "inf_llm.needles.niah:MULTIVALUE",
        "niah_multiquery": "inf_llm.needles.niah:MULTIQUERY",
        "vt": "inf_llm.needles.aggregate:VT",
        "cwe": "inf_llm.needles.aggregate:CWE",
        "fwe": "inf_llm.needles.aggregate:FWE",
        "qa": "inf_llm.needles.qa:QA",
    },
    key="needle",
)
"""Objects of `inf_llm.needles.base.Family`, named in `inf-llm demo --tasks` and the benchmark."""

CALLS = Registry(
    "form of function calls",
    {
        "hermes": "inf_llm.generation.calls.hermes:Hermes",
        "mistral": "inf_llm.generation.calls.mistral:Mistral",
        "llama": "inf_llm.generation.calls.llama:Llama",
        "bare": "inf_llm.generation.calls.bare:Bare",
    },
    key="calls",
)
"""Subclasses of `inf_llm.generation.calls.CallForm`. A model uses the first form with a mark that
occurs in its chat template, or `bare` if no mark occurs."""
