"""Logs that are bounded."""

from __future__ import annotations

import logging

import pytest

from inf_llm.serve import log_limit
from inf_llm.serve.log_limit import LINES, LogLimit, limit_logs


def test_a_logger_says_no_more_than_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(log_limit.time, "monotonic", lambda: clock[0])
    logger = logging.Logger("one")
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.addFilter(LogLimit())
    for n in range(10_000):
        logger.warning("number %d", n)
    assert lines == [f"number {n}" for n in range(LINES)]
    clock[0] += 11
    logger.warning("and %s", "more")
    assert lines[-1] == "and more (9,980 messages before it left out)"
    clock[0] += 11
    logger.warning("again")
    assert lines[-1] == "again"


def test_the_loggers_of_requests_have_it_once() -> None:
    for _ in range(2):
        limit_logs()
    for name in log_limit.LOGGERS:
        filters = logging.getLogger(name).filters
        assert sum(isinstance(each, LogLimit) for each in filters) == 1
