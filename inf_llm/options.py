"""Dataclasses of the options of variants; each object checks its values when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inf_llm.checks import at_least, one_of, require, typed
from inf_llm.units import parse_bytes


@dataclass(frozen=True)
class Tokens:
    """Options of the summary "most-attended".

    Attributes:
        tokens: number of tokens that represent a block: those with the most attention mass.
    """

    tokens: int = 4

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 1, "tokens")

    def check_with(self, settings: Any) -> None:
        """Check that a block has at least `tokens` tokens."""
        size = settings.block_size
        message = f"tokens = {self.tokens} is more than block_size = {size}, but a block is "
        message += f"represented by its own tokens: lower it to {size} or raise block_size to "
        message += str(self.tokens)
        require(self.tokens <= size, "tokens", message)


@dataclass(frozen=True)
class PageSize:
    """Options of the summary "pages".

    Attributes:
        page_size: tokens in a page; a block is split into whole pages.
    """

    page_size: int = 4

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 1, "page_size")

    def check_with(self, settings: Any) -> None:
        """Check that a block consists of whole pages."""
        size = settings.block_size
        message = f"page_size = {self.page_size} does not divide block_size = {size}: a block is "
        message += "cut into whole pages: write summary: {name: pages, page_size: N}"
        require(size % self.page_size == 0, "page_size", message)


@dataclass(frozen=True)
class Scores:
    """Options of selections.

    Attributes:
        scores: the way to combine the scores of heads: "softmax" adds each head's shares of
            attention over all blocks; "sum" adds the raw scores, as published.
    """

    scores: str = "softmax"

    def __post_init__(self) -> None:
        typed(self)
        one_of(self, "scores", ("sum", "softmax"))


@dataclass(frozen=True)
class Shortlist:
    """Options of the index "two-stage".

    Attributes:
        shortlist: number of blocks scored by their pages for each recalled block.
    """

    shortlist: int = 8

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 1, "shortlist")


@dataclass(frozen=True)
class Group:
    """Options of the codec "int4".

    Attributes:
        group: largest number of tokens that share a scale in a channel of keys, and of channels
            that share a scale in the values of a token. Smaller groups are more accurate and take
            more bytes.
    """

    group: int = 64

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 8, "group")  # with smaller groups, int8 is smaller and more accurate

    def check_with(self, settings: Any) -> None:
        """Check that a block consists of whole groups, or fits in one group."""
        size = settings.block_size
        message = f"group = {self.group} does not divide block_size = {size}: a block is cut into "
        message += f"groups of equal size: a divisor of {size} is accepted, or {size} and more"
        require(self.group >= size or size % self.group == 0, "group", message)


@dataclass(frozen=True)
class Decay:
    """Options of the policy "lru-s".

    Attributes:
        decay: factor on the score of every block, applied once per execution block.
    """

    decay: float = 0.1

    def __post_init__(self) -> None:
        typed(self)
        message = f"decay = {self.decay} is out of range: it is a factor from 0 to 1"
        require(0 <= self.decay <= 1, "decay", message)


@dataclass(frozen=True)
class Chunk:
    """Options of the index "torch", also called "int8".

    Attributes:
        chunk: number of blocks scored at a time, to limit the memory for scores; None for all at
            once.
    """

    chunk: int | None = None

    def __post_init__(self) -> None:
        typed(self)
        if self.chunk is not None:
            at_least(self, 1, "chunk")


@dataclass(frozen=True)
class InvertedFrom:
    """Options of the index "ivf".

    Attributes:
        start: number of blocks from which on faiss searches an inverted file, which reads fewer
            vectors and may miss some of the best blocks.
    """

    start: int = 1 << 17

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 64, "start")


@dataclass(frozen=True)
class Stretch:
    """Options of the scalings "linear" and "ntk".

    Attributes:
        factor: length of the texts to read, as a multiple of the trained length.
    """

    factor: float

    def __post_init__(self) -> None:
        typed(self)
        message = f"factor = {self.factor} is too small: more than 1 is needed"
        require(self.factor > 1, "factor", message)


@dataclass(frozen=True)
class YarnStretch(Stretch):
    """Options of the scaling "yarn".

    Attributes:
        trained_len: trained length of the model in tokens.
    """

    trained_len: int

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "trained_len")


@dataclass(frozen=True)
class Disk:
    """Options of the tier "disk".

    Attributes:
        path: folder for the blocks; on a local disk, not on a network drive.
        host_bytes: most bytes of these blocks that all layers together keep in host memory.
    """

    path: str
    host_bytes: str = "4GiB"

    def __post_init__(self) -> None:
        typed(self)
        require(self.path.strip() != "", "path", "path = '' is empty: a folder is needed")
        parse_bytes("host_bytes", self.host_bytes)
