"""Measure all subjects on one text: they read it in turns, and decode from branches of the cache.

The subjects take turns after each chunk and after each short burst of decoded tokens, so that other
load on the machine affects them equally. No token is read twice: decoding uses a branch of the
cache, and reading then continues with the cache itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from benchmark.timing.subjects import Subject

Note = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """The settings of a measurement.

    Attributes:
        lengths: context lengths at which decoding is measured, ascending.
        chunk: number of prompt tokens per forward pass.
        steps: number of decoded tokens timed per type and length.
        burst: number of timed tokens per turn of a type, after one token that is not timed.
        repeat: number of walks over the text.
        seed: seed of the text.
        clock: "wall", or "cpu" for the processor time of this process on all cores together, which
            other work on the machine disturbs less. It is not meaningful with a GPU.
    """

    lengths: tuple[int, ...]
    chunk: int
    steps: int = 48
    burst: int = 8
    repeat: int = 1
    seed: int = 0
    clock: str = "wall"

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Yield the start and the end of each chunk; each length is the end of a chunk."""
        first = 0
        for length in self.lengths:
            while first < length:
                last = min(length, first + self.chunk)
                yield first, last
                first = last


@dataclass
class Samples:
    """The measurements of one type at one length.

    Attributes:
        prefill: seconds for the whole prompt, one number per walk.
        tail: seconds per token, one number per chunk of the prompt's last tenth.
        decode: seconds per decoded token.
        held: bytes and counters after the prompt.
        filled: whether a part of the cache was filled with random numbers.
    """

    prefill: list[float] = field(default_factory=list)
    tail: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=dict)
    filled: bool = False


Measured = dict[tuple[str, int], Samples]


@torch.no_grad()
def walk(subjects: Sequence[Subject], plan: Plan, note: Note) -> Measured:
    """Measure each subject at all lengths up to its `decode_limit`."""
    measured: Measured = {
        (subject.name, length): Samples()
        for length in plan.lengths
        for subject in subjects
        if length <= subject.decode_limit
    }
    for round_ in range(plan.repeat):
        text = _text(subjects[0], plan)
        _warm_up(subjects, text, plan)
        _Pass(subjects, plan, text, measured, note).run()
        note(f"walk {round_ + 1} of {plan.repeat} is done")
    return measured


def _text(subject: Subject, plan: Plan) -> Tensor:
    """Return random tokens (1, longest length + tokens to decode)."""
    generator = torch.Generator().manual_seed(plan.seed)
    count = max(plan.lengths) + 2 * (plan.steps + plan.burst + 1)
    vocabulary = subject.model.config.vocab_size
    return torch.randint(vocabulary, (1, count), generator=generator).to(subject.model.device)


def _warm_up(subjects: Sequence[Subject], text: Tensor, plan: Plan) -> None:
    for subject in subjects:
        subject.begin()
        subject.feed(text[:, : plan.chunk])
        subject.feed(text[:, :1], subject.branch())
        subject.begin()


@dataclass
class _Pass:
    """One walk over the text."""

    subjects: Sequence[Subject]
    plan: Plan
    text: Tensor
    measured: Measured
    note: Note
    read: dict[str, list[tuple[int, int, float]]] = field(default_factory=dict)

    def run(self) -> None:
        self.read = {subject.name: [] for subject in self.subjects}
        for turn, (first, last) in enumerate(self.plan.chunks()):
            for subject in _rotated(self.subjects, turn):
                if last <= self._reads_until(subject):
                    tokens = self.text[:, first:last]
                    seconds = self._timed(subject, tokens)
                    self.read[subject.name].append((first, last, seconds))
            if last in self.plan.lengths:
                self._at(last)
        for subject in self.subjects:
            subject.begin()

    def _reads_until(self, subject: Subject) -> int:
        """Return the longest measured prefill of a subject; the first chunk's end if none is."""
        within = [n for n in self.plan.lengths if n <= subject.prefill_limit]
        return max(within, default=next(self.plan.chunks())[1])

    def _at(self, length: int) -> None:
        present = [s for s in self.subjects if length <= s.decode_limit]
        for subject in present:
            samples = self.measured[subject.name, length]
            if subject.seen < length:
                subject.fill(length)
                samples.filled = True
            else:
                self._prefill(samples, self.read[subject.name], length)
            samples.held = subject.held()
        self._decode(present, length)
        for subject in present:
            if not any(length < n <= subject.decode_limit for n in self.plan.lengths):
                subject.begin()  # free the memory of a subject without further lengths
        self.note(f"{length} tokens are done")

    def _prefill(self, samples: Samples, read: list[tuple[int, int, float]], length: int) -> None:
        samples.prefill.append(sum(seconds for _, _, seconds in read))
        tail = [row for row in read if row[1] > 0.9 * length]
        samples.tail += [seconds / (last - first) for first, last, seconds in tail]

    def _decode(self, present: Sequence[Subject], length: int) -> None:
        branches = {subject.name: subject.branch() for subject in present}
        at = length
        for turn in range(-(-self.plan.steps // self.plan.burst)):
            for subject in _rotated(present, turn):
                branch, samples = branches[subject.name], self.measured[subject.name, length]
                for step in range(self.plan.burst + 1):
                    token = self.text[:, at + step : at + step + 1]
                    seconds = self._timed(subject, token, branch)
                    if step:
                        samples.decode.append(seconds)
            at += self.plan.burst + 1

    def _timed(self, subject: Subject, tokens: Tensor, cache: DynamicCache | None = None) -> float:
        """Return the seconds for reading tokens, including the device's work."""
        clock = time.process_time if self.plan.clock == "cpu" else time.perf_counter
        cuda = tokens.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize(tokens.device)
        start = clock()
        subject.feed(tokens, cache)
        if cuda:
            torch.cuda.synchronize(tokens.device)
        return clock() - start


def _rotated(subjects: Sequence[Subject], turn: int) -> Iterator[Subject]:
    """Yield all subjects, starting with a different one in each turn."""
    count = len(subjects)
    return (subjects[(turn + i) % count] for i in range(count))
