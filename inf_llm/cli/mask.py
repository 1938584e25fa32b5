"""`inf-llm mask`: a picture of the tokens that each token can attend to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from inf_llm.cli.failures import reported, say
from inf_llm.cli.options import Config, Debug, Overrides, configuration, path_option
from inf_llm.cli.output import require_output, require_writable
from inf_llm.units import parse_length


@reported
def mask(
    config: Config = "demo",
    length: Annotated[
        str, typer.Option("--length", "-l", help="Length of the text in tokens: 512, 2k, 16k.")
    ] = "2k",
    out: Annotated[
        Optional[Path],  # noqa: UP045
        path_option(
            "--out", "-o", help="PNG or SVG file to write besides the drawing in the terminal."
        ),
    ] = None,
    all_types: Annotated[
        bool, typer.Option("--all", help="Draw all four attention types side by side.")
    ] = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Draw which tokens each token can attend to: sinks, window and recalled blocks.

    The shade shows the distance. The attention of the configuration reads an artificial text; no
    model is loaded.
    """
    require_output()
    require_writable("--out", out)
    chosen = configuration(config, None, overrides)
    tokens = parse_length("--length", length)
    from inf_llm.picture import visualize

    typer.echo(visualize(chosen, tokens, out, all_types=all_types))
    if out is not None:
        say(f"wrote {out}")
