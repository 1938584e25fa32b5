"""`python -m inf_llm.chat --model-path M --inf-llm-config-path F`: see `inf-llm chat`."""

from __future__ import annotations

import typer

from inf_llm.cli.chat import chat
from inf_llm.cli.failures import full_output_reported
from inf_llm.cli.output import prepare_process


def main() -> None:
    """Run the chat alone, without the other commands."""
    prepare_process()
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command()(chat)
    with full_output_reported():
        app(prog_name="python -m inf_llm.chat")


if __name__ == "__main__":
    main()
