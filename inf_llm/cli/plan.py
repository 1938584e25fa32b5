"""`inf-llm plan`: the memory and time for a model and a text, before weights are loaded."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console

from inf_llm.cli.failures import reported, say
from inf_llm.cli.options import (
    Config,
    Debug,
    Force,
    Model,
    Overrides,
    configuration,
    load_with_progress,
)
from inf_llm.cli.output import require_output
from inf_llm.config import RunConfig
from inf_llm.errors import SettingsError
from inf_llm.units import parse_bytes, parse_length

if TYPE_CHECKING:
    from inf_llm.hf.outline import Outline
    from inf_llm.plan.fit import Room
    from inf_llm.plan.pace import Pace

_WIDE = 120
"""Width of the table in characters if the output is not a terminal."""


@reported
def plan(
    config: Config = None,
    model: Model = None,
    tokens: Annotated[
        str, typer.Option("--tokens", "-t", help="Length of the text: 32k, 1m.")
    ] = "32k",
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--device", help="Memory of the GPU: 24GiB. Default: what is free, if any."),
    ] = None,
    host: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--host", help="Memory of the host: 64GiB. Default: what is free."),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Load the model and measure its pace; it is kept.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    force: Force = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Show the memory of a text: weights, window, blocks, summaries; what fits, and what would fit.

    Weights are loaded only with --calibrate. Times are those of this machine.
    """
    require_output()
    chosen = configuration(config, model, overrides)
    length = parse_length("--tokens", tokens)
    room = _room(device, host)
    from inf_llm.hf.outline import outline
    from inf_llm.plan import pace as paces
    from inf_llm.plan.report import make_report

    model_outline, here = outline(chosen), _is_here(room)
    if calibrate and not here:
        raise SettingsError(
            "--calibrate measures this machine, which has no GPU: leave it out, or --device"
        )
    if calibrate:
        paces.keep(model_outline, chosen, _measure(chosen, model_outline, length, force))
    pace = paces.known(model_outline, chosen) if here else None
    report = make_report(model_outline, _settled(chosen, model_outline, pace), length, room, pace)
    if as_json:
        typer.echo(json.dumps(report.plain(), indent=2))
        return
    Console(width=None if sys.stdout.isatty() else _WIDE).print(report.table())
    for line in report.lines():
        typer.echo(line)


def _room(device: str | None, host: str | None) -> Room:
    """Return the memory that the options name, or else the free memory."""
    named = None if device is None else parse_bytes("--device", device)
    there = None if host is None else parse_bytes("--host", host)
    from inf_llm.plan.fit import Room
    from inf_llm.plan.free import device_free, host_free

    return Room(device_free() if named is None else named, host_free() if there is None else there)


def _is_here(room: Room) -> bool:
    """Whether the plan and this machine use the same kind of device, CPU or GPU."""
    import torch

    return (room.device is not None) == torch.cuda.is_available()


def _settled(config: RunConfig, model: Outline, pace: Pace | None) -> RunConfig:
    """Return the configuration with the format that `auto` chose when the pace was measured."""
    if pace is None or config.model.dtype != "auto" or model.packed is not None:
        return config
    return replace(config, model=replace(config.model, dtype=pace.dtype))


def _measure(config: RunConfig, model: Outline, tokens: int, force: bool) -> Pace:
    from inf_llm.plan.calibrate import calibrate
    from inf_llm.plan.fit import longest

    most = longest(model, config, _room(None, None))
    loaded, _ = load_with_progress(config, force)
    say("reading some thousand tokens to measure the pace")
    return calibrate(loaded, min(tokens, most), config.chunk_size)
