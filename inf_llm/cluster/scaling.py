"""The number of replicas, as a function of the prompt tokens that wait to be read."""

from __future__ import annotations

import math
from typing import Any

WAITING_TOKENS = "waiting_tokens"


class ByTokens:
    """Autoscaling policy of Ray Serve: one replica for each `tokens` waiting tokens.

    Args:
        tokens: tokens that may wait per replica.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the wanted number of replicas, and an empty state.

        Ray keeps the number within its bounds, and changes it with a delay.

        Args:
            context: a `ray.serve.config.AutoscalingContext`.
        """
        waiting = (context.aggregated_metrics or {}).get(WAITING_TOKENS, {})
        return max(1, math.ceil(sum(waiting.values()) / self._tokens)), {}
