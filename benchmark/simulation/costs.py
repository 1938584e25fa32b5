"""What one replica's work takes, in seconds and bytes, as it was measured."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from inf_llm.checks import count, number, require_type
from inf_llm.errors import InfLLMError

_MOST = 1e15  # of bytes or seconds


@dataclass(frozen=True)
class Costs:
    """Of one model, for documents of one length.

    Attributes:
        model: its name or folder.
        machine: what it was measured on.
        how: threads, and the clock.
        dtype: of the weights.
        tokens: of a document.
        bytes: that a replica takes for a document which it has in memory.
        reading: seconds for a token of a document, the mean over all of it.
        opening: seconds more for the first token of an answer where the memory is on the disk.
        asking: seconds of any question, its tokens apart: the document's last tokens, which do not
            fill an execution block, are fed again with it.
        question: seconds for a token of a question behind the document.
        answering: seconds for a token of an answer, where there is no other.
        together: seconds for a token of each of `rows` answers, all in one step.
        rows: how many.

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
        number("bytes", self.bytes, 1, _MOST)
        number("answering", self.answering, 1e-12, _MOST)
        for name in ("reading", "opening", "asking", "question", "together"):
            number(name, getattr(self, name), 0, _MOST)

    @property
    def more(self) -> float:
        """Seconds that one answer more adds to a step."""
        return max(0.0, self.together - self.answering) / (self.rows - 1)

    def step(self, answers: int) -> float:
        """Seconds of a step in which so many answers get a token each."""
        return self.answering + (answers - 1) * self.more


def read_costs(path: Path) -> Costs:
    """Costs from a file of `write_costs`.

    Raises:
        InfLLMError: the file cannot be read, or does not hold them.
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
