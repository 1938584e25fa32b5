"""How much of a prompt is read in one step."""

from __future__ import annotations

SECONDS = 0.1
"""What a step shall take: so long waits who comes next."""
_NEWEST = 0.3  # share of the newest step in what is taken for the speed


class Pace:
    """Cuts steps by the time that earlier ones took.

    Args:
        block: tokens of an execution block; a step has whole ones, one at least.
        most: tokens of the longest step.

    Attributes:
        tokens: of the next step.
    """

    def __init__(self, block: int, most: int) -> None:
        self._block, self._most = block, most
        self._speed: float | None = None  # tokens per second
        self.tokens = block

    def note(self, tokens: int, seconds: float) -> None:
        """A step fed so many tokens in so many seconds."""
        if tokens < self._block or seconds <= 0:
            return
        speed = tokens / seconds
        before = speed if self._speed is None else self._speed
        self._speed = before + _NEWEST * (speed - before)
        wanted = min(self._most, int(self._speed * SECONDS))
        self.tokens = max(self._block, wanted // self._block * self._block)
