"""The number of prompt tokens that one step reads."""

from __future__ import annotations

SECONDS = 0.1
"""Target duration of a step, which is the time that a newly arrived request waits for a step."""
_NEWEST = 0.3  # weight of the newest step in the moving average of the speed


class Pace:
    """Chooses the length of a step from the speed of earlier steps.

    Args:
        block: tokens of an execution block; a step consists of one or more whole blocks.
        most: tokens of the longest step.

    Attributes:
        tokens: tokens of the next step.
    """

    def __init__(self, block: int, most: int) -> None:
        self._block, self._most = block, most
        self._speed: float | None = None  # tokens per second
        self.tokens = block

    def note(self, tokens: int, seconds: float) -> None:
        """Record the tokens and the duration of a step; steps shorter than a block do not count."""
        if tokens < self._block or seconds <= 0:
            return
        speed = tokens / seconds
        before = speed if self._speed is None else self._speed
        self._speed = before + _NEWEST * (speed - before)
        wanted = min(self._most, int(self._speed * SECONDS))
        self.tokens = max(self._block, wanted // self._block * self._block)
