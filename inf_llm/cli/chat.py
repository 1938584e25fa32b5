"""`inf-llm chat` and `python -m inf_llm.chat`: talk to a model in the terminal, about any text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from inf_llm.cli.failures import reported, say
from inf_llm.cli.options import (
    CONFIG_HELP,
    Debug,
    Force,
    Overrides,
    configuration,
    load_with_progress,
    path_option,
)
from inf_llm.cli.output import require_output
from inf_llm.errors import TextError


@reported
def chat(
    config: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--config", "--inf-llm-config-path", "-c", help=CONFIG_HELP),
    ] = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--model", "--model-path", "-m", help="Folder, GGUF file or hub name, for model.path."
        ),
    ] = None,
    read: Annotated[
        Optional[list[Path]],  # noqa: UP045
        path_option(
            "--read", "-r", help="Text to read before the first question; may be repeated."
        ),
    ] = None,
    conv_template: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--conv-template", help="Prompt layout: vicuna, plain, ..."),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option("--temperature", min=0, help="Of sampling; 0 takes the likeliest token."),
    ] = 0.7,
    repetition_penalty: Annotated[
        float,
        typer.Option("--repetition-penalty", "--repetition_penalty", min=0.01, help="1 is none."),
    ] = 1.0,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", min=1, help="Most tokens of an answer.")
    ] = 512,
    style: Annotated[
        str, typer.Option("--style", help="FastChat's style: simple, rich or programmatic.")
    ] = "simple",
    multiline: Annotated[
        bool, typer.Option("--multiline", help="Take questions of several lines; Ctrl-D ends one.")
    ] = False,
    mouse: Annotated[bool, typer.Option("--mouse", help="Let the mouse move the cursor.")] = False,
    no_history: Annotated[
        bool,
        typer.Option("--no-history", help="Forget earlier questions and answers; documents stay."),
    ] = False,
    force: Force = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Talk to a model about texts of any length; !!help lists the commands.

    !!read FILE adds a whole file to the conversation. Texts stay in memory, so a further question
    costs only its own tokens. Ctrl-C stops an answer, Ctrl-D leaves the chat.
    """
    require_output()
    if sys.stdin is None:
        raise TextError("standard input is closed, and questions are read from there: open it")
    chosen = configuration(config, model, overrides)
    from inf_llm.chat.session import ChatSession
    from inf_llm.cli.styles import StyleChoice, choose_style
    from inf_llm.cli.terminal import Terminal, file_document

    for path in read or []:
        file_document(str(path))  # checked before the model is loaded
    terminal_style = choose_style(StyleChoice(style, multiline, mouse), say)
    loaded, tokenizer = load_with_progress(chosen, force)
    session = ChatSession(
        loaded,
        tokenizer,
        conv_template or chosen.conv_type,
        chosen.chunk_size,
        max_len=chosen.max_len,
        truncation=chosen.truncation,
        control_tokens=chosen.control_tokens,
    )
    sampling: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    if repetition_penalty != 1:
        sampling["repetition_penalty"] = repetition_penalty
    say(f"messages are laid out by {session.layout.name}; !!help lists the commands")
    terminal = Terminal(session, terminal_style, sampling, not no_history, debug)
    for path in read or []:
        terminal.read(str(path))
    terminal.run()
