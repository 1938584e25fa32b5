"""What one process measures: a subject, a model, a document with its questions."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from inf_llm.config import RunConfig, load_config
from inf_llm.fidelity.tasks import Context, Question


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        subject: a row of `subjects.SUBJECTS`.
        config: name or file of the configuration, whose settings the package reads with.
        overrides: KEY=VALUE texts laid on it.
        context: the document as tokens, and its questions: the same for all subjects.
        answer: least tokens of an answer.
        threads: of the process.
        server: command of llama.cpp's server.
        gguf: the model as one file, for that server.
        trained: tokens that the model was trained for; None where it does not say.
    """

    subject: str
    config: str
    overrides: tuple[str, ...]
    context: Context
    answer: int = 32
    threads: int = 2
    server: str | None = None
    gguf: str | None = None
    trained: int | None = None

    def settings(self, *more: str) -> RunConfig:
        """The configuration, with further overrides."""
        return load_config(self.config, [*self.overrides, *more])

    @property
    def room(self) -> int:
        """Tokens that a context must have room for: document, question and answer."""
        return len(self.context.ids) + max(
            len(question.tail) + self.length(question) for question in self.context.questions
        )

    def length(self, question: Question) -> int:
        """Tokens that are generated: the right answer has room, and a pace can be measured."""
        return max(self.answer, len(question.answer) + 4)

    def text(self) -> str:
        """As JSON, in one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def parse(cls, text: str) -> Job:
        """The job that `text` wrote."""
        given: dict[str, Any] = json.loads(text)
        context = given["context"]
        context["questions"] = tuple(Question(**_tuples(row)) for row in context["questions"])
        given["context"] = Context(**_tuples(context))
        return cls(**_tuples(given))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Lists as the tuples that they were."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
