"""`inf-llm demo`: needle tests of all attention types, with the model of this package."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from inf_llm.cli.failures import reported, say
from inf_llm.cli.options import Debug, Overrides, load_quietly, path_option
from inf_llm.cli.output import require_output, require_writable
from inf_llm.config import SHIPPED_CONFIGS, RunConfig, load_config
from inf_llm.errors import ConfigError
from inf_llm.settings import settings_class
from inf_llm.units import parse_lengths, short
from inf_llm.variants import ATTENTION, NEEDLE

if TYPE_CHECKING:
    from inf_llm.demo import Trial

ORIGIN_LIMIT = 8192
"""Longest haystack for full attention, whose time grows with the square of the length."""


@reported
def demo(
    lengths: Annotated[
        str, typer.Option("--lengths", help="Lengths of the haystacks in tokens: 512, 32k, 1m.")
    ] = "4k,32k,128k",
    types: Annotated[str, typer.Option("--types", help="Attention types to compare.")] = ",".join(
        ATTENTION.own
    ),
    tasks: Annotated[
        str, typer.Option("--tasks", help="Needle families: passkey, number, kv, lines, ...")
    ] = "passkey",
    samples: Annotated[
        int, typer.Option("--samples", "-n", min=1, help="Haystacks for each length.")
    ] = 10,
    seed: Annotated[
        int, typer.Option("--seed", help="Random seed; the same seed gives the same table.")
    ] = 0,
    config_dir: Annotated[
        Optional[Path],  # noqa: UP045
        path_option("--config-dir", help="Folder with files demo-TYPE.yaml to use instead."),
    ] = None,
    json_file: Annotated[
        Optional[Path],  # noqa: UP045
        path_option("--json", help="Write the rows to this JSON file."),
    ] = None,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        path_option("--plot", help="Draw the heat maps to this PNG, SVG or PDF file."),
    ] = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Hide facts in real prose, read it with each attention type, and count the facts found.

    The model comes with the package and was trained on 512 tokens. Full attention runs up to 8k
    tokens only. KEY=VALUE settings apply to every type that runs.
    """
    require_output()
    require_writable("--json", json_file)
    require_writable("--plot", plot)
    sizes = parse_lengths("--lengths", lengths)
    configs = {name: _config(name, config_dir, overrides or []) for name in _names(types)}
    families = _families(tasks)
    from inf_llm.demo.report import heat_maps, table

    console = Console()
    trials: list[Trial] = []
    for length in sizes:
        for trial in _trials(configs, length, families, samples, seed):
            trials.append(trial)
        console.print(table([trial for trial in trials if trial.length == length]))
    if len(sizes) > 1:
        console.print(table(trials))
    console.print(heat_maps(trials))
    _write(trials, json_file, plot)


def _trials(
    configs: dict[str, RunConfig], length: int, families: list[str], samples: int, seed: int
) -> Iterator[Trial]:
    """Run every type and task at one length, with a progress bar."""
    from inf_llm.demo import plan, run_trial

    runs = [name for name in configs if name != "origin" or length <= ORIGIN_LIMIT]
    if len(runs) < len(configs):
        say(f"origin is not run at {short(length)}: full attention is too slow there")
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        for task in families:
            hay = None
            for name in runs:
                model, tokenizer = load_quietly(configs[name])
                hay = hay or plan(tokenizer, task, length, samples, seed)
                job = bar.add_task(f"{name} {short(length)} {task}", total=length * samples)
                yield run_trial(
                    model,
                    tokenizer,
                    name,
                    hay,
                    length,
                    configs[name].chunk_size,
                    functools.partial(bar.advance, job),
                )
                bar.remove_task(job)


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(settings_class(part.strip()).type for part in text.split(",")))


def _families(text: str) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        NEEDLE.require(name)
    return names


def _config(name: str, folder: Path | None, overrides: list[str]) -> RunConfig:
    """Return the configuration of one type for the model of this package, or one from a folder."""
    spelling = "stream-llm" if name == "stream-lm" else name  # the name in published files
    try:
        return load_config((folder or SHIPPED_CONFIGS) / f"demo-{spelling}.yaml", overrides)
    except ConfigError as error:
        if not overrides:
            raise
        raise ConfigError(
            f"{error}. Settings go to every type that is run: --types chooses which"
        ) from error


def _write(trials: list[Trial], json_file: Path | None, picture: Path | None) -> None:
    from inf_llm.demo.report import plot

    if json_file is not None:
        rows = [trial.record() for trial in trials]
        json_file.write_text(json.dumps(rows, indent=1) + "\n")
        say(f"wrote {json_file}")
    if picture is not None:
        plot(trials, picture)
        say(f"wrote {picture}")
