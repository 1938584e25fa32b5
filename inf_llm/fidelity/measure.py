"""Measure several rules on the same contexts and questions; each pair of them gives a row.

Answers are teacher-forced: every answer token is predicted from the right tokens before it. Greedy
decoding gives the answer exactly if each of its tokens is the most likely one. As in generation,
the last prompt token and every answer token are execution blocks of their own, so that each token
selects its own blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from inf_llm.fidelity.readers import FULL, CacheFactory
from inf_llm.fidelity.recall import FIELDS
from inf_llm.fidelity.tasks import Context, Question
from inf_llm.fidelity.tee import Probe, of_one, recall, tees
from inf_llm.generation.prefill import prefill
from inf_llm.hf.cache import MemoryCache
from inf_llm.hf.decoder import device_of, with_cache
from inf_llm.hf.generate import answering

OWN, DENSE = READS = ("own", "dense")
"""Each rule reads the context itself ("own"), or full attention reads it for all ("dense")."""
STEP = 256
"""Number of context tokens that take about as long to read as one answer, token by token."""
PROSE_ROW = "prose"
"""Value of `question` in the row of the prose that follows a context."""
Row = dict[str, Any]


class Measure:
    """Measures the rules on contexts.

    Args:
        caches: the model and the rules.
        step: tokens of a context per forward pass.
        read: one of `READS`.
        full: whether full attention is measured, and the figures that compare rules with it.
        on_step: called with the number of `STEP`s just completed; an answer counts as one.
    """

    def __init__(
        self,
        caches: CacheFactory,
        step: int,
        read: str = OWN,
        full: bool = True,
        on_step: Callable[[float], None] = lambda count: None,
    ) -> None:
        self._desk, self._step, self._read = caches, step, read
        self._full, self._on_step = full, on_step

    @torch.no_grad()
    def rows(self, context: Context, wanted: Sequence[str]) -> Iterator[Row]:
        """Yield a row per wanted rule for every question, and for the prose after the context.

        If full attention is measured, the rows of a rule with a block memory also have the mass
        that the memory recalls for full attention's queries.
        """
        probes = [*context.questions, *_going_on(context)]
        rules = [name for name in wanted if name != FULL]
        expected, recalls, joint = self._expected(context, probes, rules)
        for name in wanted:
            cache = None if name == FULL else self._cache_for(name, joint, context)
            for number, question in enumerate(probes):
                if cache is None:
                    logits = expected[number]
                else:
                    logits = self._answer(cache.fork(), context, question, name)
                row = {"rule": name, **_of_question(context, number, probes)}
                row |= _scores(question, logits, expected[number])
                yield row | recalls[number].get(name, {})

    def _expected(
        self, context: Context, probes: Sequence[Question], rules: Sequence[str]
    ) -> tuple[list[Any], list[dict[str, Any]], MemoryCache | None]:
        """Return full attention's log-probabilities, the recall of each rule, and the joint cache.

        The log-probabilities and the recall are lists with one entry per question. Without full
        attention, their entries are None and empty, and the cache is None.
        """
        if not self._full:
            return [None] * len(probes), [{}] * len(probes), None
        kept = [n for n in rules if self._read == DENSE or self._desk.readers[n].recalls]
        joint = self._fill(self._desk.joint_cache([FULL, *kept]), context)
        observed = [self._observed(joint, context, question) for question in probes]
        return [logits for logits, _ in observed], [recalls for _, recalls in observed], joint

    def _cache_for(self, name: str, joint: MemoryCache | None, context: Context) -> MemoryCache:
        if self._read == OWN:
            return self._fill(self._desk.cache(name), context)
        assert joint is not None
        return of_one(joint, name)

    def _fill(self, cache: MemoryCache, context: Context) -> MemoryCache:
        ids = torch.tensor([context.ids], device=device_of(self._desk.model))
        for part, _ in prefill(self._desk.model, ids, cache, self._step):
            self._on_step(part.numel() / STEP)
        return cache

    def _observed(
        self, joint: MemoryCache, context: Context, question: Question
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return full attention's log-probabilities, and each rule's recall for its queries."""
        cache = joint.fork()
        for tee in tees(cache):
            tee.probe = Probe(len(context.ids) + max(0, len(question.tail) - 1), question.needle)
        logits = self._answer(cache, context, question, FULL)
        return logits, {name: {"recall": _columns(sums)} for name, sums in recall(cache).items()}

    def _answer(
        self, cache: MemoryCache, context: Context, question: Question, name: str
    ) -> Tensor:
        """Return log-probabilities (n, V) after each token of tail and answer but the last.

        A question without a tail is the continuation of a text: it is fed as a prompt, not as an
        answer.
        """
        ids = torch.tensor([[*question.tail, *question.answer]], device=device_of(self._desk.model))
        end = None
        if question.tail:
            last_too = self._desk.readers[name].prompt_alone
            end = len(context.ids) + len(question.tail) + (not last_too)
        with answering(end):
            arguments = with_cache(self._desk.model, cache)
            logits = self._desk.model(input_ids=ids, **arguments).logits[0, :-1]
        self._on_step(1)
        return logits.float().log_softmax(-1)


def _going_on(context: Context) -> list[Question]:
    """Return the prose after a context as a question without a tail, if there is any."""
    return [Question((), context.prose, "")] if len(context.prose) > 1 else []


def _columns(sums: Tensor) -> dict[str, list[float]]:
    """Return sums of mass (layers, 6) as one list per name of `FIELDS`."""
    columns = zip(FIELDS, sums.T.tolist(), strict=True)
    return {name: [round(value, 5) for value in column] for name, column in columns}


def _of_question(context: Context, number: int, probes: Sequence[Question]) -> Row:
    """Return the columns of a row that describe its question."""
    question = probes[number]
    return {
        "task": context.task,
        "context": context.number,
        "question": number if question.tail else PROSE_ROW,
        "depth": question.depth,
        "read": len(context.ids),
        "probes": len(probes),
    }


def _scores(question: Question, logits: Tensor, expected: Tensor | None) -> Row:
    """Return the columns of a row that describe the answer, from log-probabilities (n, V)."""
    question_tokens = max(0, len(question.tail) - 1)
    answer_logits = logits[question_tokens:]
    wanted = torch.tensor(question.answer[-len(answer_logits) :], device=answer_logits.device)
    right = (answer_logits.argmax(-1) == wanted).tolist()
    row = {
        "tokens": len(wanted),
        "nll": _mean((-answer_logits.gather(1, wanted[:, None])[:, 0]).tolist()),
        "right": sum(right) / len(right),
        "exact": all(right),
    }
    if expected is not None:
        divergence = _divergence(expected, logits).tolist()
        row |= {
            "kl_question": _mean(divergence[:question_tokens]),
            "kl": _mean(divergence[question_tokens:]),
        }
    return row


def _divergence(expected: Tensor, logits: Tensor) -> Tensor:
    """Return the KL divergence KL(expected || actual) per token (n,), in nats."""
    return (expected.exp() * (expected - logits)).sum(-1)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
