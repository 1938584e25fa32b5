"""Many questions about one text, from a JSONL file into another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inf_llm.cli.failures import say
from inf_llm.cli.open_text import OpenText
from inf_llm.cli.options import memory_line
from inf_llm.cli.progress import TokenProgress

if TYPE_CHECKING:
    from inf_llm.generation.questions import Question


def default_answers(questions: Path) -> Path:
    """Where the answers to a file of questions go if nothing else is said."""
    return questions.with_name(f"{questions.stem}.answers.jsonl")


def answer_all(
    opened: OpenText, questions: Sequence[Question], path: Path, max_new_tokens: int
) -> None:
    """Answer what is not answered yet; each question is asked of the text alone.

    Raises:
        TextError: the file of the answers cannot be used, or a prompt is longer than max_len.
    """
    from inf_llm.generation.questions import answering

    with answering(path, questions, opened.digest) as answers:
        if answers.done:
            say(f"{path}: {len(answers.done):,} of {len(questions):,} are answered already")
        memory = lambda: memory_line(opened.session.stats())  # noqa: E731
        with TokenProgress(memory, "questions", ("answering", "answered")) as progress:
            for index, question in answers.left():
                new = opened.prompt(question.text, max_new_tokens)
                said = opened.ask(opened.session.fork(), new, max_new_tokens, None)
                answers.add(index, said.text.strip())
                progress(len(answers.done), len(questions))
    say(f"{path}: {len(questions):,} answers")
