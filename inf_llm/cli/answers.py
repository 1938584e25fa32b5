"""Answers to many questions about a text, from one JSONL file into another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inf_llm.cli.failures import say
from inf_llm.cli.many import Bars, require_seen, work_off
from inf_llm.cli.models import Models
from inf_llm.cli.open_text import Subject, begin
from inf_llm.cli.options import memory_line
from inf_llm.cli.reading import Step

if TYPE_CHECKING:
    from inf_llm.cluster.tasks import Work
    from inf_llm.generation.questions import Question

_DOING = {"tokens": ("reading", "read"), "questions": ("answering", "answered")}


@dataclass(frozen=True)
class Answered:
    """Progress of answering: another question is answered.

    Attributes:
        done: number of questions about the text that are answered.
        memory: description of the memory in use.
    """

    done: int
    memory: str


@dataclass(frozen=True)
class Asking:
    """A text, and questions about it.

    Attributes:
        name: name of the text.
        subject: the text.
        about: digest of the subject.
        questions: the questions; each is answered without the others in the prompt.
        path: absolute path of the answers, for a process in another working directory.
        shown: the path as the user gave it.
        max_new_tokens: longest answer.
        done: number of questions that earlier runs answered.
        force: whether to read a text that is known not to fit.
    """

    name: str
    subject: Subject
    about: str
    questions: tuple[Question, ...]
    path: Path
    shown: Path
    max_new_tokens: int
    done: int
    force: bool


def default_answers(questions: Path) -> Path:
    """Return the default file for the answers to a file of questions."""
    return questions.with_name(f"{questions.stem}.answers.jsonl")


def asking_of(
    name: str,
    subject: Subject,
    tokenizer: Any,
    questions: Sequence[Question],
    path: Path,
    max_new_tokens: int,
    force: bool,
) -> Asking:
    """Prepare the questions about a text.

    Raises:
        TextError: the file of the answers cannot be used, or a prompt is longer than max_len.
    """
    from inf_llm.generation import choose_layout
    from inf_llm.generation.questions import answering

    config, about = subject.config, subject.digest
    layout = choose_layout(tokenizer, config.conv_type, config.control_tokens)
    with answering(path, questions, about) as answers:
        done = len(answers.done)
        for _, question in answers.left():
            subject.prompt(tokenizer, layout, question.text, max_new_tokens)
    if done:
        say(f"{path}: {done:,} of {len(questions):,} are answered already")
    return Asking(
        name, subject, about, tuple(questions), path.absolute(), path, max_new_tokens, done, force
    )


def make_answerer(first: Asking) -> Work[Asking]:
    """Load the model of the first text; return the function that reads texts and answers questions.

    The errors are those of `load_with_progress`.
    """
    models = Models(first.force)
    models.of(first.subject.config)

    def answer(asking: Asking, given: int) -> Iterator[Step | Answered]:
        return _answer(models, asking)

    return answer


def _answer(models: Models, asking: Asking) -> Iterator[Step | Answered]:
    """Read a text, and add answers to its file for the questions that have none."""
    from inf_llm.generation.questions import answering

    with answering(asking.path, asking.questions, asking.about) as answers:
        opened = begin(asking.subject, *models.of(asking.subject.config))
        for tokens in opened.read(asking.force):
            yield Step(tokens, memory_line(opened.session.stats()))
        for index, question in answers.left():
            new = opened.prompt(question.text, asking.max_new_tokens)
            answer = opened.ask(opened.session.fork(), new, asking.max_new_tokens, None)
            answers.add(index, answer.text.strip())
            yield Answered(len(answers.done), memory_line(opened.session.stats()))


def answer_all(askings: Sequence[Asking], engine: str, address: str | None) -> None:
    """Answer questions, with a progress bar.

    The bar shows the memory in use for one text, and the number of finished texts for several.

    Raises:
        InfLLMError: some texts failed; the questions about the others are answered.
    """
    left = [each for each in askings if each.done < len(each.questions)]
    done = {each.name: each.done for each in askings}
    total = sum(len(each.questions) for each in askings)
    alone = len(askings) == 1

    def on_item(asking: Asking, item: Step | Answered) -> None:
        if isinstance(item, Answered):
            done[asking.name] = item.done
        elif alone:
            bars.show("tokens", item.done, len(asking.subject.start.ids), item.memory)
            return
        ended = sum(done[text.name] == len(text.questions) for text in askings)
        status = item.memory if alone else f"{ended} of {len(askings)} texts"
        bars.show("questions", sum(done.values()), total, status)

    with Bars(_DOING) as bars:
        work_off(left, make_answerer, engine, address, on_item)
    for asking in askings:
        require_seen(asking.path, asking.shown)
        say(f"{asking.shown}: {len(asking.questions):,} answers")
