"""The command line, one file per command.

Exit codes: 0 done, 1 an unexpected failure, 2 an error that the user can correct, 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
from typing import Annotated

import typer

from inf_llm import __version__
from inf_llm.cli.chat import chat
from inf_llm.cli.configs import configs
from inf_llm.cli.demo import demo
from inf_llm.cli.failures import full_output_reported
from inf_llm.cli.fidelity import fidelity
from inf_llm.cli.mask import mask
from inf_llm.cli.memory import app as memory
from inf_llm.cli.output import prepare_process
from inf_llm.cli.plan import plan
from inf_llm.cli.ppl import ppl
from inf_llm.cli.read import read
from inf_llm.cli.run import run
from inf_llm.cli.serve import serve

app = typer.Typer(
    name="inf-llm",
    help="A long-context memory for Hugging Face decoders, configured by a YAML file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(read)
app.command()(run)
app.command()(ppl)
app.command()(plan)
app.command()(mask)
app.command()(demo)
app.command()(serve)
app.command()(chat)
app.command()(fidelity)
app.command()(configs)
app.add_typer(memory, name="memory")


def _version(wanted: bool) -> None:
    if wanted:
        from inf_llm.native import in_use

        typer.echo(f"inf-llm {__version__}\ndecode steps on a CPU: {in_use()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Print the version, and what computes decode steps on a CPU.",
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; the entry point of the console script."""
    prepare_process()
    # At exit Python would search all objects of torch and transformers for garbage twice more: a
    # fifth of the time that a short command takes.
    atexit.register(gc.freeze)
    with full_output_reported():
        app()
