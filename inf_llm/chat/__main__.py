"""`python -m inf_llm.chat --model-path M --inf-llm-config-path F`: see `inf-llm chat`."""

from __future__ import annotations

import os

import typer

from inf_llm.cli.chat import chat


def main() -> None:
    """Run the chat by itself, without the other commands."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see `inf_llm.cli.main`
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command()(chat)
    app(prog_name="python -m inf_llm.chat")


if __name__ == "__main__":
    main()
