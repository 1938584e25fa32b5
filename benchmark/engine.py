"""The harness's whole acquaintance with the package: a few calls, in one file.

An engine opens readers; a reader reads a document once, forks, and answers. `open_core` makes the
real one. Workers find an engine by its address, ``"module:function"``, since a Ray worker or a
second process imports it anew.
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

# What forks of one document count together: a resumed run would count otherwise, and rows must
# not show whether a run was disturbed.
_COUNTERS = ("hits", "misses", "loads", "evictions")


class Reader(Protocol):
    """What has been read, and answers about it."""

    def read(self, ids: Sequence[int]) -> None:
        """Take in tokens; nothing is said."""

    def fork(self) -> Reader:
        """A second reader that has read the same; nothing is read again."""

    def ask(self, ids: Sequence[int], max_new_tokens: int, stop: Sequence[str]) -> str:
        """Take in further tokens and answer, greedily."""

    def stats(self) -> Mapping[str, Any]:
        """What the memory holds: plain numbers by name."""


class Engine(Protocol):
    """A loaded model."""

    tokenizer: Any

    def open(self) -> Reader:
        """A reader that has read nothing."""

    def recover(self) -> None:
        """Give back what a failed sample may still hold."""


def make_engine(address: str, config: RunConfig) -> Engine:
    """The engine that the function at ``module:function`` makes."""
    module, function = address.split(":")
    engine: Engine = getattr(importlib.import_module(module), function)(config)
    return engine


def open_core(config: RunConfig) -> Engine:
    """The package itself."""
    return CoreEngine(config)


def load_tokenizer(config: RunConfig) -> Any:
    """The tokenizer alone, where a driver has no model of its own."""
    from inf_llm.hf.load import load_tokenizer as load

    return load(config)


def user_message(tokenizer: Any, text: str, conv_type: str | None) -> tuple[str, bool]:
    """A message in its conversation's layout, and whether special tokens are still to be added.

    Control tokens in it count as such, as in the published evaluations.
    """
    from inf_llm.generation import choose_layout

    layout = choose_layout(tokenizer, conv_type, control_tokens=True)
    return layout.prompt([{"role": USER, "content": text}]), layout.adds_special


class CoreEngine:
    """A model loaded and patched by the package."""

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
    """One of the package's sessions."""

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
        held = dataclasses.asdict(self._session.stats())
        return {key: value for key, value in held.items() if key not in _COUNTERS}
