"""Logs that are bounded."""

from __future__ import annotations

import logging
import os

import pytest

from inf_llm.serve import sparing
from inf_llm.serve.sparing import LINES, Sparing, spare_logs, spare_memory


def test_a_logger_says_no_more_than_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(sparing.time, "monotonic", lambda: clock[0])
    logger = logging.Logger("one")
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.addFilter(Sparing())
    for n in range(10_000):
        logger.warning("number %d", n)
    assert said == [f"number {n}" for n in range(LINES)]
    clock[0] += 11
    logger.warning("and %s", "more")
    assert said[-1] == "and more (9,980 messages before it left out)"
    clock[0] += 11
    logger.warning("again")
    assert said[-1] == "again"


def test_the_loggers_of_requests_have_it_once() -> None:
    for _ in range(2):
        spare_logs()
    for name in sparing.LOGGERS:
        filters = logging.getLogger(name).filters
        assert sum(isinstance(each, Sparing) for each in filters) == 1


def test_a_setting_of_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    name, value = sparing.PRIMITIVES
    monkeypatch.setattr(sparing, "_LARGE", 32 << 20)
    monkeypatch.setenv(name, "7")
    spare_memory()
    assert os.environ[name] == "7"
    monkeypatch.delenv(name)
    spare_memory()
    assert os.environ[name] == value
    monkeypatch.delenv(name)
