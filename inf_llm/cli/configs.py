"""`inf-llm configs`: the configurations that come with the package."""

from __future__ import annotations

import typer

from inf_llm.cli.failures import reported
from inf_llm.cli.options import Debug
from inf_llm.config_file import read_mapping, shipped


@reported
def configs(debug: Debug = False) -> None:
    """List the names that --config takes, each with its model and attention type."""
    for name, file in shipped().items():
        model = read_mapping(file)[1]["model"]
        typer.echo(f"{name:<24} {model.get('path', 'any, with --model'):<38} {model['type']}")
