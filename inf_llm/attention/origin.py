"""Full attention over all that was fed: the yardstick, as long as memory lasts."""

from __future__ import annotations

from inf_llm.attention.window import WindowAttention
from inf_llm.rope import Rope
from inf_llm.settings import OriginSettings


class OriginAttention(WindowAttention):
    """A window without end."""

    def __init__(self, rope: Rope, settings: OriginSettings) -> None:
        del settings
        super().__init__(rope, None)
