"""How many replicas there should be, by the tokens that wait to be read."""

from __future__ import annotations

import math
from typing import Any

WAITING_TOKENS = "waiting_tokens"


class ByTokens:
    """Ray Serve's autoscaling policy: as many replicas as read what waits in the time it may take.

    Args:
        tokens: that may wait for each replica.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """The number that is wanted, and no state; Ray keeps it in its bounds, and waits a while.

        Args:
            context: a `ray.serve.config.AutoscalingContext`.
        """
        waiting = (context.aggregated_metrics or {}).get(WAITING_TOKENS, {})
        return max(1, math.ceil(sum(waiting.values()) / self._tokens)), {}
