"""`inf-llm run`: read a text of any length, then answer."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from inf_llm.checks import check_question
from inf_llm.cli.answers import answer_all, default_answers
from inf_llm.cli.asking import Text, askings_of, texts_of
from inf_llm.cli.documents import open_document, open_piped
from inf_llm.cli.failures import reported
from inf_llm.cli.many import Words, check_engine, out_option, split_words
from inf_llm.cli.open_text import memory_configuration
from inf_llm.cli.options import (
    Address,
    Config,
    Debug,
    Engine,
    File,
    Force,
    Model,
    configuration,
    path_option,
)
from inf_llm.cli.output import argument_text, require_output, require_writable
from inf_llm.cli.prompted import answer_prompt
from inf_llm.errors import TextError

if TYPE_CHECKING:
    from inf_llm.config import RunConfig
    from inf_llm.formats import DocumentText


@reported
def run(
    prompt: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--prompt", "-p", help="Question after the text; '' lets the model continue the text."
        ),
    ] = None,
    config: Config = None,
    model: Model = None,
    file: File = None,
    memory: Annotated[
        Optional[Path],  # noqa: UP045
        path_option("--memory", help="Folder of `inf-llm read`: its text is not read again."),
    ] = None,
    questions: Annotated[
        Optional[Path],  # noqa: UP045
        path_option("--questions", help='JSONL: a text or a {"question": ...} a line.'),
    ] = None,
    answers: Annotated[
        Optional[Path],  # noqa: UP045
        path_option("--answers", help="JSONL for their answers; it is gone on with."),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", min=1, help="Most tokens of the answer.")
    ] = 128,
    trace: Annotated[
        Optional[Path],  # noqa: UP045
        path_option(
            "--trace", help="Write a report of what was recalled for each word to this HTML file."
        ),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        out_option(help="With --questions: folder for the answers about each FILE."),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    force: Force = False,
    words: Words = None,
    debug: Debug = False,
) -> None:
    """Read a text of any length, then answer a prompt about it.

    The answer goes to standard output, everything else to standard error.
    Without --file the text is read from standard input, unless that is a terminal. If there is no
    text, the prompt alone is answered. With --memory, the text of --file is read after that of the
    memory, and standard input is read only with --file -. With --out, a FILE may also be the folder
    of a memory.
    """
    require_output()
    require_writable("--trace", trace)
    files, overrides = split_words(words, out)
    check_engine(engine, address)
    configured = cache(partial(_configuration, config=config, model=model, overrides=overrides))
    if questions is None:
        _refuse("goes with --questions", out=out, engine=None if engine == "local" else engine)
        prompt = _checked(prompt, answers)
        chosen, document = configured(memory), _document(file, memory, prompt)
        answer_prompt(chosen, memory, document, prompt, max_new_tokens, trace, force)
        return
    _refuse("does not go with --questions: leave one of them out", prompt=prompt, trace=trace)
    if out is not None:
        _refuse(
            "is for one text, and --out for several: leave one out",
            file=file,
            memory=memory,
            answers=answers,
        )
    from inf_llm.generation.questions import read_questions

    listed = read_questions(questions)
    if out is not None:
        texts = texts_of(files, out, configured)
    else:
        chosen, path = configured(memory), answers or default_answers(questions)
        name = str(file or memory or "standard input")
        texts = [Text(name, chosen, memory, _document(file, memory), path)]
    askings = askings_of(texts, listed, max_new_tokens, force)
    answer_all(askings, engine, address)


def _refuse(why: str, **given: object) -> None:
    for option, value in given.items():
        if value is not None:
            raise TextError(f"--{option} {why}")


def _document(file: Path | None, memory: Path | None, prompt: str = "") -> DocumentText:
    """Return the document to read: a file, or piped input if there is no memory either.

    Raises:
        TextError: there is no text, no memory and no prompt.
    """
    from inf_llm.formats import DocumentText

    if file is not None:
        return open_document(file)
    document = open_piped() if memory is None else DocumentText("")
    if memory is None and not (document.text or prompt):
        raise TextError("nothing to read and nothing to ask about: give --file, or a --prompt")
    return document


def _checked(prompt: str | None, answers: Path | None) -> str:
    """Return the prompt, after checks that it can be answered."""
    if prompt is None:
        raise TextError("nothing to ask: give --prompt, or --questions with a JSONL file")
    if answers is not None:
        raise TextError("--answers goes with --questions: an answer to --prompt is printed")
    prompt = argument_text("--prompt", prompt)
    if prompt:
        check_question("--prompt", prompt)
    return prompt


def _configuration(
    memory: Path | None, config: str | None, model: str | None, overrides: list[str] | None
) -> RunConfig:
    if memory is None:
        return configuration(config, model, overrides)
    return memory_configuration(memory, config, model, overrides)
