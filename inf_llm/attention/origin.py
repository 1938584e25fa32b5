"""Full attention to all tokens fed: the baseline for comparisons, limited only by memory."""

from __future__ import annotations

from inf_llm.attention.window import WindowAttention
from inf_llm.rope import Rope
from inf_llm.settings import OriginSettings


class OriginAttention(WindowAttention):
    """A local window without a limit."""

    def __init__(self, rope: Rope, settings: OriginSettings) -> None:
        del settings
        super().__init__(rope, None)
