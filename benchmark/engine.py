"""The interface between the harness and the package: all calls are in this file.

An engine opens readers. A reader reads a document once, forks, and answers. `open_core` makes the
engine of this package. An engine is named by the address ``"module:function"`` of a function that
makes it, because a Ray worker or another process must import it again.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from inf_llm.config import RunConfig
from inf_llm.conversation import USER

CORE = "benchmark.engine:open_core"

# Counters that all forks of a document share. In a resumed run they have other values, so the rows
# leave them out: equal runs must give equal rows.
_COUNTERS = ("hits", "misses", "loads", "evictions")


class Reader(Protocol):
    """A read document that can answer questions."""

    def read(self, ids: Sequence[int]) -> None:
        """Read tokens without generating any."""

    def fork(self) -> Reader:
        """Return a second reader of the same tokens, without reading them again."""

    def ask(self, ids: Sequence[int], max_new_tokens: int, stop: Sequence[str]) -> str:
        """Read further tokens, and return a greedily decoded answer."""

    def stats(self) -> Mapping[str, Any]:
        """Return statistics of the memory: plain numbers by name."""


class Engine(Protocol):
    """A loaded model."""

    tokenizer: Any

    def open(self) -> Reader:
        """Return a reader that has read no tokens."""

    def recover(self) -> None:
        """Free the memory that a failed sample may still occupy."""


def make_engine(address: str, config: RunConfig) -> Engine:
    """Return the engine that the function at ``module:function`` makes."""
    module, function = address.split(":")
    engine: Engine = getattr(importlib.import_module(module), function)(config)
    return engine


def open_core(config: RunConfig) -> Engine:
    """Return the engine of this package."""
    return CoreEngine(config)


def load_tokenizer(config: RunConfig) -> Any:
    """Return the tokenizer alone, for a driver process without a model."""
    from inf_llm.hf.load import load_tokenizer as load

    return load(config)


def user_message(tokenizer: Any, text: str, conv_type: str | None) -> tuple[str, bool]:
    """Return a user message in its chat layout, and whether special tokens must still be added.

    Control tokens in the message's text keep their meaning, as in the published evaluations.
    """
    from inf_llm.generation import choose_layout

    layout = choose_layout(tokenizer, conv_type, control_tokens=True)
    return layout.prompt([{"role": USER, "content": text}]), layout.adds_special


class CoreEngine:
    """An engine whose model the package loads and patches."""

    def __init__(self, config: RunConfig) -> None:
        import inf_llm

        self.config = config
        self.model, self.tokenizer = inf_llm.load(config)

    def open(self) -> Reader:
        from inf_llm.generation import Session

        return CoreReader(Session(self.model, self.tokenizer, chunk_size=self.config.chunk_size))

    def recover(self) -> None:
        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class CoreReader:
    """A reader that wraps a session of the package."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def read(self, ids: Sequence[int]) -> None:
        self._session.read(list(ids))

    def fork(self) -> Reader:
        return CoreReader(self._session.fork())

    def ask(self, ids: Sequence[int], max_new_tokens: int, stop: Sequence[str]) -> str:
        answer = self._session.ask(list(ids), max_new_tokens=max_new_tokens, stop=list(stop))
        return str(answer.text)

    def stats(self) -> Mapping[str, Any]:
        stats = dataclasses.asdict(self._session.stats())
        return {key: value for key, value in stats.items() if key not in _COUNTERS}
