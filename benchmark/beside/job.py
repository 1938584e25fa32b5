"""A job for one process: a subject, a model, and a document with its questions."""

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
        subject: a key of `subjects.SUBJECTS`.
        config: name or file of the configuration of the model and its memory.
        overrides: KEY=VALUE overrides of the configuration.
        context: the document as token ids, with its questions; the same for all subjects.
        answer: minimum number of tokens of an answer.
        threads: number of CPU threads of the process.
        server: command of llama.cpp's server.
        gguf: path of the model's GGUF file, for that server.
        trained: trained context length in tokens; None if the model does not state it.
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
        """Load the configuration, with further overrides `more`."""
        return load_config(self.config, [*self.overrides, *more])

    @property
    def room(self) -> int:
        """Required context size in tokens: document, longest question and its answer."""
        return len(self.context.ids) + max(
            len(question.tail) + self.length(question) for question in self.context.questions
        )

    def length(self, question: Question) -> int:
        """Return the number of tokens to generate: at least `answer`, and enough for the answer."""
        return max(self.answer, len(question.answer) + 4)

    def text(self) -> str:
        """Return the job as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def parse(cls, text: str) -> Job:
        """Return the job from the JSON of `Job.text`."""
        data: dict[str, Any] = json.loads(text)
        context = data["context"]
        context["questions"] = tuple(Question(**_tuples(row)) for row in context["questions"])
        data["context"] = Context(**_tuples(context))
        return cls(**_tuples(data))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Convert lists, as JSON has them, back to tuples."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
