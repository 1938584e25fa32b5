"""The model for several texts: loaded for the first text, and kept for the next ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from inf_llm.cli.options import load_with_progress
from inf_llm.config import RunConfig


class Models:
    """Loads models, and keeps one model at a time.

    Args:
        force: whether to load a model that is known not to fit.
    """

    def __init__(self, force: bool) -> None:
        self._force = force
        self._loaded: tuple[RunConfig, Any, Any] | None = None

    def of(self, config: RunConfig) -> tuple[Any, Any]:
        """Return the model and tokenizer of a configuration; see `load_with_progress`."""
        if self._loaded is None or not _suits(config, *self._loaded[:2]):
            self._loaded = None  # freed first: two models may not fit
            self._loaded = config, *load_with_progress(config, self._force)
        return self._loaded[1:]


def _suits(wanted: RunConfig, config: RunConfig, model: Any) -> bool:
    """Whether a model loaded by `config` is the wanted one, in a format that is accepted."""
    from inf_llm.hf.dtype import dtype_name

    fits = wanted.model.dtype in ("auto", dtype_name(model.dtype))
    return fits and _any_format(wanted) == _any_format(config)


def _any_format(config: RunConfig) -> RunConfig:
    return replace(config, model=replace(config.model, dtype="auto"))
