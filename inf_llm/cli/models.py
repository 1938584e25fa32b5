"""The model of several texts: loaded when the first needs it, and kept for the next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from inf_llm.cli.options import load_aloud
from inf_llm.config import RunConfig


class Models:
    """One model at a time.

    Args:
        force: load what is known not to fit.
    """

    def __init__(self, force: bool) -> None:
        self._force = force
        self._loaded: tuple[RunConfig, Any, Any] | None = None

    def of(self, config: RunConfig) -> tuple[Any, Any]:
        """The model and tokenizer of a configuration; raises as `load_aloud`."""
        if self._loaded is None or not _suits(config, *self._loaded[:2]):
            self._loaded = None  # two would not fit
            self._loaded = config, *load_aloud(config, self._force)
        return self._loaded[1:]


def _suits(wanted: RunConfig, config: RunConfig, model: Any) -> bool:
    """Whether a model loaded by `config` is the one wanted: `auto` may have chosen its format."""
    from inf_llm.hf.dtype import dtype_name

    fits = wanted.model.dtype in ("auto", dtype_name(model.dtype))
    return fits and _any_format(wanted) == _any_format(config)


def _any_format(config: RunConfig) -> RunConfig:
    return replace(config, model=replace(config.model, dtype="auto"))
