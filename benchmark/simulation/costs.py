"""Measured costs of a replica's work, in seconds and bytes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from inf_llm.checks import count, number, require_type
from inf_llm.errors import InfLLMError

_MAX = 1e15  # of bytes or seconds


@dataclass(frozen=True)
class Costs:
    """The costs of one model, for documents of one length.

    Attributes:
        model: name or folder of the model.
        machine: the machine of the measurement.
        how: number of threads, and the clock.
        dtype: dtype of the weights.
        tokens: number of tokens of a document.
        bytes: memory for one document in a replica.
        reading: mean seconds per token of a document.
        opening: additional seconds to the first token of an answer if the memory is on the disk.
        asking: fixed seconds per question, without the question's tokens. The document's last
            tokens, which do not fill an execution block, are fed again with each question.
        question: seconds per token of a question after the document.
        answering: seconds per token of a single answer.
        together: seconds of a step that decodes one token for each of `rows` answers.
        rows: number of answers for `together`.

    Raises:
        SettingsError: a value is of another type, or out of range.
    """

    model: str
    machine: str
    how: str
    dtype: str
    tokens: int
    bytes: int
    reading: float
    opening: float
    asking: float
    question: float
    answering: float
    together: float
    rows: int

    def __post_init__(self) -> None:
        for name in ("model", "machine", "how", "dtype"):
            require_type(name, getattr(self, name), str)
        count("tokens", self.tokens)
        count("rows", self.rows, 2)
        number("bytes", self.bytes, 1, _MAX)
        number("answering", self.answering, 1e-12, _MAX)
        for name in ("reading", "opening", "asking", "question", "together"):
            number(name, getattr(self, name), 0, _MAX)

    @property
    def more(self) -> float:
        """Seconds that each additional answer adds to a step."""
        return max(0.0, self.together - self.answering) / (self.rows - 1)

    def step(self, answers: int) -> float:
        """Return the seconds of a step that decodes one token for each of `answers` answers."""
        return self.answering + (answers - 1) * self.more


def read_costs(path: Path) -> Costs:
    """Read costs from a file of `write_costs`.

    Raises:
        InfLLMError: the file cannot be read, or does not contain costs.
    """
    try:
        return Costs(**json.loads(path.read_bytes()))
    except OSError as error:
        raise InfLLMError(
            f"--costs {path}: cannot be read ({error.strerror}): --measure CONFIG makes the file"
        ) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise InfLLMError(f"--costs {path}: holds no costs of --measure ({error})") from None


def write_costs(path: Path, costs: Costs) -> None:
    """Write costs as JSON."""
    path.write_text(json.dumps(asdict(costs), indent=2) + "\n", encoding="utf-8")
