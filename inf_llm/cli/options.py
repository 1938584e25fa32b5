"""Options that commands share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from inf_llm.cli.failures import say
from inf_llm.config import RunConfig, load_config, suited
from inf_llm.errors import ConfigError
from inf_llm.processor import processor
from inf_llm.units import size

if TYPE_CHECKING:
    from inf_llm.memory.stats import MemoryStats


def _given(path: str | Path) -> Path:
    """Return a path as given. Refuse an empty one, for instance from a variable that is not set."""
    if not str(path).strip() or "\0" in str(path):
        raise typer.BadParameter(
            f"{str(path)!r} is no path: name a file or a folder ('.' is this one)"
        )
    return Path(path)


path_option = partial(typer.Option, parser=_given, metavar="PATH")
path_argument = partial(typer.Argument, parser=_given)
CONFIG_HELP = (
    "YAML file, or a name that `inf-llm configs` lists: the model and the settings of its "
    "attention. Default with --model: what suits that model."
)
Config = Annotated[
    Optional[str],  # noqa: UP045 (typer reads it at run time, on Python 3.10 too)
    typer.Option("--config", "-c", help=CONFIG_HELP),
]
Model = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--model", "-m", help="Folder, GGUF file or hub name, for model.path."),
]
File = Annotated[
    Optional[Path],  # noqa: UP045
    path_option("--file", "-f", help="Text or document to read. '-' or nothing: standard input."),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings that replace those of the file: model.topk=32 max_len=100000",
        show_default=False,
    ),
]
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="This process, or one process for each GPU or replica on Ray."),
]
Address = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--address", help="With --engine ray: of a cluster. Default: this machine alone."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Go on where memory is known to be too small.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def configuration(config: str | None, model: str | None, overrides: list[str] | None) -> RunConfig:
    """Return the checked configuration; print settings without effect after a type override.

    Raises:
        ConfigError: the configuration cannot be used, or neither it nor a model is named.
    """
    if config is None and model is None:
        raise ConfigError(
            "nothing to run: give --config with a file or a name (inf-llm configs lists them), or "
            "--model with a folder, a GGUF file or a hub name"
        )
    chosen = load_config(config or suited(model or ""), overrides or (), model=model)
    if chosen.left_out:
        keys = ", ".join(chosen.left_out)
        say(f"left out, as they do not belong to type {chosen.attention.type!r}: {keys}")
    return chosen


def load_quietly(config: RunConfig) -> tuple[Any, Any]:
    """Load the model and its tokenizer, without the messages of transformers on the screen."""
    import transformers

    from inf_llm.hf.load import load

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return load(config)


def load_with_progress(config: RunConfig, force: bool) -> tuple[Any, Any]:
    """Load the model and its tokenizer, and print what is loaded and how.

    Raises:
        RoomError: the weights do not fit, and `force` is not set.
    """
    if not force:
        from inf_llm.plan.refuse import require_room

        require_room(config)
    source = Path(config.source or "")
    name = source.stem if source.parent.name == "config" else source
    say(f"loading {config.model.path} with {config.attention.type} attention, settings of {name}")
    model, tokenizer = load_quietly(config)
    from inf_llm.hf.dtype import dtype_choice

    choice = dtype_choice(model)
    if choice is not None:
        say(f"loaded in {choice}; {processor()}")
    if config.model.weights is not None:
        from inf_llm.hf.weights import rounded_bytes

        say(f"answers read weights in int8, which take {size(rounded_bytes(model))} more")
    return model, tokenizer


def memory_line(stats: MemoryStats) -> str:
    """Return a description of the memory in use, per place."""
    on_disk = f", {size(stats.disk_bytes)} disk" if stats.disk_bytes else ""
    return f"{size(stats.device_bytes)} device, {size(stats.host_bytes)} host{on_disk}"
