"""A whole run over tasks, contexts and rules, resumed from the rows that exist."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inf_llm.checks import at_least, one_of
from inf_llm.errors import SettingsError
from inf_llm.fidelity.drafts import DEFINITION, Source
from inf_llm.fidelity.measure import DENSE, READS, STEP, Measure
from inf_llm.fidelity.readers import FULL, CacheFactory, Reader, baselines
from inf_llm.fidelity.rows import Results
from inf_llm.fidelity.tasks import ROOM, ContextBuilder, check_task
from inf_llm.generation.layout import Layout
from inf_llm.generation.prefill import Progress
from inf_llm.hf.decoder import trained_length

_FEED = 1024
"""Most tokens per forward pass, so that progress is visible. Results do not depend on the number,
as long as it is a multiple of the execution block."""


@dataclass(frozen=True)
class Plan:
    """The contexts and questions of a run.

    Attributes:
        tasks: names of the tasks.
        length: most tokens of a context with its question and answer.
        contexts: number of contexts per task.
        questions: number of questions per context.
        seed: seed of the contexts; seeds from `tasks.HELD_OUT` on are not for choosing a rule.
        read: "own": every rule reads the context itself; "dense": full attention reads for all.
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
        """Return the values that all rows of a folder share; contexts and tasks may be added."""
        plan = asdict(self)
        shared = {key: plan[key] for key in ("length", "questions", "seed", "read")}
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return {"definition": DEFINITION, "model": model, "text": digest, **shared}


def rules(readers: Sequence[Reader]) -> dict[str, Any]:
    """Return the settings of every measured rule, by name."""
    return {each.name: each.record() for each in (*baselines(readers[0]), *readers)}


class Run:
    """A plan with the model, the rules and the texts to carry it out.

    Args:
        plan: the contexts and questions of the run.
        model: an unpatched model; the constructor patches it.
        tokenizer: the model's tokenizer.
        layout: layout of conversations.
        readers: the rules; the sinks and the window of the first one are also measured alone.
        source: the texts.
        chunk_size: tokens of a context per forward pass.

    Attributes:
        full: whether full attention is measured. It is unless the plan's length exceeds the
            length for which the model was trained.
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
        self._contexts = ContextBuilder(tokenizer, layout, source, plan.length, plan.seed)
        self._desk = CacheFactory(model, [*baselines(readers[0]), *readers])
        self._step = _step(chunk_size, readers)
        names = list(self._desk.readers)
        self._names = names if self.full else [name for name in names if name != FULL]

    def measure(self, results: Results, progress: Progress) -> None:
        """Measure the rows that the results lack, and add them one by one."""
        waiting = list(self._waiting(results))
        counter = _Counter(progress, sum(self._work(missing) for _, _, missing in waiting))
        measure = Measure(self._desk, self._step, self.plan.read, self.full, counter.add)
        for task, number, missing in waiting:
            for row in measure.rows(self._contexts.context(task, number), missing):
                results.add(row)
        counter.finish()

    def _waiting(self, results: Results) -> Iterator[tuple[str, int, list[str]]]:
        for task in self.plan.tasks:
            for number in range(self.plan.contexts):
                missing = results.missing(task, number, self._names)
                if missing:
                    yield task, number, missing

    def _work(self, missing: Sequence[str]) -> int:
        """Return the approximate number of `STEP`s that a context takes."""
        separate = 0 if self.plan.read == DENSE else sum(name != FULL for name in missing)
        answers = (self.plan.questions + 1) * len({*missing, *self._names[: self.full]})
        return (separate + self.full) * (self.plan.length - ROOM) // STEP + answers


class _Counter:
    """Adds up steps for a progress bar whose total is an estimate."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0.0

    def add(self, steps: float) -> None:
        self._done = min(self._done + steps, self._total)
        self._progress(int(self._done), self._total)

    def finish(self) -> None:
        self.add(self._total - self._done)


def _step(chunk_size: int, readers: Sequence[Reader]) -> int:
    """Return the tokens per forward pass: a multiple of the largest execution block."""
    block = max(getattr(reader.settings, "exc_block_size", 1) for reader in readers)
    return max(block, min(chunk_size, _FEED) // block * block)
