"""A rate limit on logs, so that a hostile client cannot fill them."""

from __future__ import annotations

import logging
import time

LINES, SECONDS = 20, 10.0
"""Most messages of a logger in a period, and the period; a traceback counts as one message."""
LOGGERS = ("asyncio", "inf_llm.serve", "uvicorn.error")


class LogLimit(logging.Filter):
    """Passes `LINES` messages per `SECONDS`, and reports the number of dropped messages."""

    def __init__(self) -> None:
        super().__init__()
        self._until, self._passed = 0.0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        now = time.monotonic()
        if now >= self._until:
            left_out, self._passed = self._passed - LINES, 0
            self._until = now + SECONDS
            if left_out > 0:
                record.msg = f"{record.getMessage()} ({left_out:,} messages before it left out)"
                record.args = None
        self._passed += 1
        return self._passed <= LINES


def limit_logs() -> None:
    """Add a `LogLimit` to each logger in `LOGGERS`."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(each, LogLimit) for each in logger.filters):
            logger.addFilter(LogLimit())
