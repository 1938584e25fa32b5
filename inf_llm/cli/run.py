"""`inf-llm run`: read a text of any length, then answer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from inf_llm.checks import check_question
from inf_llm.cli.answers import answer_all, default_answers
from inf_llm.cli.documents import open_document, open_piped
from inf_llm.cli.failures import reported, say
from inf_llm.cli.open_text import OpenText, memory_configuration, open_text
from inf_llm.cli.options import (
    Config,
    Debug,
    File,
    Force,
    Model,
    Overrides,
    configuration,
    load_aloud,
    memory_line,
    path_option,
)
from inf_llm.cli.output import argument_text, require_output, require_writable
from inf_llm.cli.progress import TokenProgress
from inf_llm.conversation import BETWEEN, USER
from inf_llm.errors import TextError
from inf_llm.units import pace, size

if TYPE_CHECKING:
    from inf_llm.config import RunConfig
    from inf_llm.formats import DocumentText
    from inf_llm.generation import Answer, Landmarks, Layout, Session
    from inf_llm.hf.trace import trace as Tracing


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
    force: Force = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Read a text of any length, then answer a prompt about it.

    The answer goes to standard output, everything else to standard error.
    Without --file the text comes from standard input, if that is not a terminal; where nothing
    comes from there, the prompt alone is answered. With --memory and --file it
    reads on; standard input is then read with --file - alone.
    """
    require_output()
    require_writable("--trace", trace)
    if questions is None:
        prompt = _checked(prompt, answers)
    else:
        _refuse_beside_questions(prompt, trace)
    chosen = _configuration(memory, config, model, overrides)
    from inf_llm.formats import DocumentText
    from inf_llm.generation.questions import read_questions

    listed = None if questions is None else read_questions(questions)
    if file is not None:
        document = open_document(file)
    else:
        document = open_piped() if memory is None else DocumentText("")
    if memory is None and not (document.text or prompt):
        raise TextError("nothing to read and nothing to ask about: give --file, or a --prompt")
    if listed is not None and questions is not None:
        opened = open_text(chosen, memory, document, force)
        answer_all(opened, listed, answers or default_answers(questions), max_new_tokens)
    elif memory is not None:
        _answer_from(
            open_text(chosen, memory, document, force), prompt or "", max_new_tokens, trace
        )
    else:
        _read_and_answer(chosen, document, prompt or "", max_new_tokens, trace, force)


def _checked(prompt: str | None, answers: Path | None) -> str:
    """The prompt, where it can be answered."""
    if prompt is None:
        raise TextError("nothing to ask: give --prompt, or --questions with a JSONL file")
    if answers is not None:
        raise TextError("--answers goes with --questions: an answer to --prompt is printed")
    prompt = argument_text("--prompt", prompt)
    if prompt:
        check_question("--prompt", prompt)
    return prompt


def _refuse_beside_questions(prompt: str | None, trace: Path | None) -> None:
    for option, given in (("--prompt", prompt), ("--trace", trace)):
        if given is not None:
            raise TextError(f"{option} does not go with --questions: leave one of them out")


def _configuration(
    memory: Path | None, config: str | None, model: str | None, overrides: list[str] | None
) -> RunConfig:
    if memory is None:
        return configuration(config, model, overrides)
    return memory_configuration(memory, config, model, overrides)


def _answer_from(opened: OpenText, prompt: str, max_new_tokens: int, trace: Path | None) -> None:
    """Answer a question about what was read, on standard output."""
    from transformers import TextStreamer

    from inf_llm.hf.trace import trace as tracing

    session = opened.session
    new = opened.prompt(prompt, max_new_tokens)
    tokens = len(session.ids) + len(new)
    watch = None if trace is None else tracing(session.model, prompts=False)
    streamer = TextStreamer(session.tokenizer, skip_special_tokens=True)
    with watch or contextlib.nullcontext():
        answer = opened.ask(session, new, max_new_tokens, streamer)
    said = len(answer.token_ids)
    say(f"answered {said} in {pace(said, answer.seconds)}; memory {memory_line(session.stats())}")
    if watch is not None and trace is not None:
        title = f"{opened.config.model.path}: {prompt}"
        _report(watch, session, tokens, trace, title, opened.landmarks)


def _read_and_answer(
    chosen: RunConfig,
    document: DocumentText,
    prompt: str,
    max_new_tokens: int,
    trace: Path | None,
    force: bool,
) -> None:
    """Read a text with its question, as one prompt, and answer on standard output."""
    from transformers import TextStreamer

    from inf_llm.generation import Landmarks, Session, answer_ends, choose_layout
    from inf_llm.hf.trace import trace as tracing
    from inf_llm.plan.refuse import require_room

    loaded, tokenizer = load_aloud(chosen, force)
    layout = choose_layout(tokenizer, chosen.conv_type, chosen.control_tokens)
    message = BETWEEN.join(part for part in (document.text, prompt) if part)
    ids = _prompt_ids(tokenizer, layout, message, chosen, max_new_tokens)
    if not force:
        require_room(chosen, len(ids) + max_new_tokens, loaded.dtype)
    watch = None if trace is None else tracing(loaded, prompts=False)
    session = Session(loaded, tokenizer, chosen.chunk_size)
    with TokenProgress(lambda: memory_line(session.stats())) as progress:
        session.read(ids, progress)
        reading = pace(session.fed, progress.seconds)
    with watch or contextlib.nullcontext():
        answer = session.ask(
            max_new_tokens=max_new_tokens,
            streamer=TextStreamer(tokenizer, skip_special_tokens=True),
            eos_token_id=answer_ends(loaded, layout),
        )
    say(_summary(session, answer, len(ids), reading))
    if watch is not None and trace is not None:
        title = f"{chosen.model.path}: {prompt}"
        _report(watch, session, len(ids), trace, title, [Landmarks.of(document)])


def _prompt_ids(
    tokenizer: Any, layout: Layout, message: str, config: RunConfig, max_new_tokens: int
) -> list[int]:
    from inf_llm.generation import encode, fit

    prompt = layout.prompt([{"role": USER, "content": message}])
    ids = encode(tokenizer, prompt, layout.adds_special)
    kept = fit(ids, config.max_len - max_new_tokens, config.truncation)
    if len(kept) < len(ids):
        say(f"cut the prompt from {len(ids):,} to {len(kept):,} tokens ({config.truncation})")
    return kept


def _report(
    watch: Tracing,
    session: Session,
    prompt_tokens: int,
    path: Path,
    title: str,
    landmarks: Sequence[Landmarks],
) -> None:
    from inf_llm.generation import save_report

    save_report(
        watch,
        session.ids,
        session.tokenizer,
        path,
        prompt_tokens=prompt_tokens,
        title=title[:300],
        landmarks=landmarks,
    )
    say(f"what was recalled for each word: {path}")


def _summary(session: Session, answer: Answer, tokens: int, reading: str) -> str:
    stats, new = session.stats(), len(answer.token_ids)
    recalled = stats.hits + stats.misses
    parts = [
        f"read {tokens:,} tokens in {reading}",
        f"answered {new} in {pace(new, answer.seconds)}",
        f"memory {memory_line(stats)}",
    ]
    if recalled:
        parts.append(f"index {size(stats.index_bytes)}")
        parts.append(f"{stats.blocks:,} blocks, {stats.hits / recalled:.0%} of recalls at hand")
    return "; ".join(parts)
