"""A whole run: tasks by contexts by rules, resumed from the rows that are there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inf_llm.checks import at_least, one_of
from inf_llm.errors import SettingsError
from inf_llm.fidelity.drafts import DEFINITION, Source
from inf_llm.fidelity.measure import DENSE, READS, STEP, Measure
from inf_llm.fidelity.readers import FULL, Desk, Reader, baselines
from inf_llm.fidelity.rows import Results
from inf_llm.fidelity.tasks import ROOM, Workshop, check_task
from inf_llm.generation.layout import Layout
from inf_llm.generation.prefill import Progress
from inf_llm.hf.decoder import trained_length

_FEED = 1024
"""Most tokens fed at a time, for the progress to be seen; what is computed does not depend on it
as long as it is whole execution blocks."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        tasks: their names.
        length: most tokens of a context with its question and answer.
        contexts: how many there are of each task.
        questions: how many are asked about each.
        seed: of the contexts; seeds from `tasks.HELD_OUT` on are not for choosing a rule.
        read: "own", every rule reads in its own way, or "dense", full attention reads for all.
    """

    tasks: tuple[str, ...] = ("number", "key", "copy")
    length: int = 4096
    contexts: int = 2
    questions: int = 4
    seed: int = 0
    read: str = READS[0]

    def __post_init__(self) -> None:
        at_least(self, 1, "length", "contexts", "questions")
        one_of(self, "read", READS)
        for name in self.tasks:
            check_task(name)

    def asked(self, model: str, text: str) -> dict[str, Any]:
        """What all rows of a folder have in common: this, but contexts and tasks may be added."""
        plan = asdict(self)
        shared = {key: plan[key] for key in ("length", "questions", "seed", "read")}
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return {"definition": DEFINITION, "model": model, "text": digest, **shared}


def rules(readers: Sequence[Reader]) -> dict[str, Any]:
    """The settings of every rule that is measured, by name."""
    return {each.name: each.record() for each in (*baselines(readers[0]), *readers)}


class Run:
    """A plan with all it takes.

    Args:
        plan: what is measured.
        model: not patched; it is patched here.
        tokenizer: the model's.
        layout: of conversations.
        readers: the rules; the first one's sinks and window are also measured alone.
        source: the texts.
        chunk_size: tokens of a context fed at a time.

    Attributes:
        full: whether full attention is measured: the model was trained for this length.
    """

    def __init__(
        self,
        plan: Plan,
        model: Any,
        tokenizer: Any,
        layout: Layout,
        readers: Sequence[Reader],
        source: Source,
        chunk_size: int = 8192,
    ) -> None:
        trained = trained_length(model)
        self.plan = plan
        self.full = trained is None or plan.length <= trained
        if not self.full and plan.read == DENSE:
            raise SettingsError(
                f"--read dense reads with full attention, and length = {plan.length} is more than "
                f"the {trained} tokens that the model was trained for: use --read own, or a "
                "shorter length"
            )
        self._shop = Workshop(tokenizer, layout, source, plan.length, plan.seed)
        self._desk = Desk(model, [*baselines(readers[0]), *readers])
        self._step = _step(chunk_size, readers)
        names = list(self._desk.readers)
        self._names = names if self.full else [name for name in names if name != FULL]

    def measure(self, results: Results, progress: Progress) -> None:
        """Measure what the results lack, and add it row by row."""
        waiting = list(self._waiting(results))
        counter = _Counter(progress, sum(self._work(missing) for _, _, missing in waiting))
        measure = Measure(self._desk, self._step, self.plan.read, self.full, counter.add)
        for task, number, missing in waiting:
            for row in measure.rows(self._shop.context(task, number), missing):
                results.add(row)
        counter.finish()

    def _waiting(self, results: Results) -> Iterator[tuple[str, int, list[str]]]:
        for task in self.plan.tasks:
            for number in range(self.plan.contexts):
                missing = results.missing(task, number, self._names)
                if missing:
                    yield task, number, missing

    def _work(self, missing: Sequence[str]) -> int:
        """About how many steps a context takes."""
        own = 0 if self.plan.read == DENSE else sum(name != FULL for name in missing)
        answers = (self.plan.questions + 1) * len({*missing, *self._names[: self.full]})
        return (own + self.full) * (self.plan.length - ROOM) // STEP + answers


class _Counter:
    """Adds up steps, for a progress bar that was promised about so many."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0.0

    def add(self, steps: float) -> None:
        self._done = min(self._done + steps, self._total)
        self._progress(int(self._done), self._total)

    def finish(self) -> None:
        self.add(self._total - self._done)


def _step(chunk_size: int, readers: Sequence[Reader]) -> int:
    """Tokens fed at a time: whole execution blocks of the rule with the largest."""
    block = max(getattr(reader.settings, "exc_block_size", 1) for reader in readers)
    return max(block, min(chunk_size, _FEED) // block * block)
