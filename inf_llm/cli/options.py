"""Options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from inf_llm.cli.failures import say
from inf_llm.config import RunConfig, load_config
from inf_llm.processor import processor

if TYPE_CHECKING:
    from inf_llm.memory.stats import MemoryStats

Config = Annotated[
    str,
    typer.Option("--config", "-c", help="YAML file: the model and the settings of its attention."),
]
Model = Annotated[
    Optional[str],  # noqa: UP045 (typer reads it at run time, on Python 3.10 too)
    typer.Option("--model", "-m", help="Folder, GGUF file or hub name, for model.path."),
]
File = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--file", "-f", help="Text to read. '-' or nothing: standard input."),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings that replace those of the file: model.topk=32 max_len=100000",
        show_default=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def configuration(config: str, model: str | None, overrides: list[str] | None) -> RunConfig:
    """The checked configuration; says what an override of the type left without effect."""
    chosen = load_config(config, overrides or (), model=model)
    if chosen.left_out:
        keys = ", ".join(chosen.left_out)
        say(f"left out, as they do not belong to type {chosen.attention.type!r}: {keys}")
    return chosen


def load_quietly(config: RunConfig) -> tuple[Any, Any]:
    """The model and its tokenizer; transformers' own notes are kept off the screen."""
    say(f"loading {config.model.path} with {config.attention.type} attention")
    import transformers

    from inf_llm.hf.dtype import dtype_choice
    from inf_llm.hf.load import load

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model, tokenizer = load(config)
    choice = dtype_choice(model)
    if choice is not None:
        say(f"loaded in {choice}; {processor()}")
    return model, tokenizer


def size(count: int) -> str:
    """Bytes as a person reads them."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def memory_line(stats: MemoryStats) -> str:
    """What is held where."""
    return f"{size(stats.device_bytes)} device, {size(stats.host_bytes)} host"
