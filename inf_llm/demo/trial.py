"""One trial: haystacks of one length, one attention type, and the needles that were found.

The haystacks of a trial have equal length and are read together, in one or a few batches. An answer
counts if it is completely right, by the scoring rule that the needle's family shares with the
benchmark.
"""

from __future__ import annotations

import lzma
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inf_llm.errors import SettingsError
from inf_llm.generation.options import own_options
from inf_llm.generation.prefill import empty_cache, feed_length, held, prefill, whole_blocks
from inf_llm.generation.tokens import encode
from inf_llm.hf.decoder import device_of, with_cache
from inf_llm.needles import Sample, build_many

Progress = Callable[[int], None]
"""Called with the number of tokens read since the last call, over all rows."""

_HAYSTACK = Path(__file__).parent.parent / "assets" / "demo" / "haystack.txt.xz"
_BATCH_TOKENS = 1 << 16  # most tokens of haystacks read together, to limit memory


@dataclass(frozen=True)
class Trial:
    """Results of one attention type on all haystacks of one length and one task.

    Attributes:
        type: attention type.
        length: tokens of a haystack with its question.
        task: needle family.
        depths: depths of the needles, 0 to 1.
        found: whether each needle was found.
        seconds: time to read and answer all haystacks.
        device_kv_bytes: bytes of keys and values on the device, per haystack, after reading.
    """

    type: str
    length: int
    task: str
    depths: tuple[float, ...]
    found: tuple[bool, ...]
    seconds: float
    device_kv_bytes: int

    @property
    def n(self) -> int:
        """Number of haystacks."""
        return len(self.found)

    @property
    def accuracy(self) -> float:
        """Share of needles found."""
        return sum(self.found) / self.n

    @property
    def tokens_per_second(self) -> float:
        """Tokens read and answered per second, over all haystacks."""
        return self.n * self.length / max(self.seconds, 1e-9)

    def record(self) -> dict[str, Any]:
        """Return the trial as one row of JSON."""
        return {
            "type": self.type,
            "length": self.length,
            "task": self.task,
            "accuracy": self.accuracy,
            "n": self.n,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "device_kv_bytes": self.device_kv_bytes,
            "depths": [round(depth, 4) for depth in self.depths],
            "found": list(self.found),
        }


@lru_cache(maxsize=1)
def haystack_text() -> str:
    """Return public-domain prose that the demo model was not trained on."""
    if not _HAYSTACK.exists():
        raise SettingsError(
            f"{_HAYSTACK.name} is missing from this installation: reinstall inf-llm"
        )
    return lzma.decompress(_HAYSTACK.read_bytes()).decode()


def plan(tokenizer: Any, task: str, length: int, samples: int, seed: int) -> list[Sample]:
    """Make the haystacks of a trial: needles at evenly spread depths, each haystack different.

    Depths are the middles of `samples` equal parts: every type sees needles at the very ends.
    """
    depths = [(i + 0.5) / samples for i in range(samples)]
    return build_many(task, tokenizer, haystack_text(), length, depths, seed)


@torch.no_grad()
def run_trial(
    model: Any,
    tokenizer: Any,
    type: str,
    samples: Sequence[Sample],
    length: int,
    chunk_size: int,
    on_tokens: Progress = lambda count: None,
) -> Trial:
    """Read every haystack, ask its question, and count exact answers.

    Args:
        model: a model, patched to `type`.
        tokenizer: the model's tokenizer.
        type: name of the attention type in the trial.
        samples: haystacks of about `length` tokens.
        length: length of the haystacks in the trial.
        chunk_size: tokens of a row per chunk.
        on_tokens: called with the number of tokens just read.
    """
    started = time.perf_counter()
    found: list[bool] = []
    device_bytes = 0
    rows = _rows_at_once(length)
    for first in range(0, len(samples), rows):
        batch = samples[first : first + rows]
        ids = _equal_length([encode(tokenizer, sample.prompt) for sample in batch])
        cache = _read(model, ids.to(device_of(model)), chunk_size, on_tokens)
        device_bytes = max(device_bytes, held(cache).device_bytes // len(batch))
        answers = _answer(model, tokenizer, ids.to(device_of(model)), cache, batch)
        found += [sample.found(text) for sample, text in zip(batch, answers, strict=True)]
    return Trial(
        type=type,
        length=length,
        task=samples[0].family,
        depths=tuple(sample.depth for sample in samples),
        found=tuple(found),
        seconds=time.perf_counter() - started,
        device_kv_bytes=device_bytes,
    )


def _rows_at_once(length: int) -> int:
    """Return the number of haystacks to read together: many short ones, a long one alone."""
    return max(1, min(16, _BATCH_TOKENS // length))


def _equal_length(rows: list[list[int]]) -> Tensor:
    """Cut rows to the shortest (B, N), after the first token: this drops filler, not a needle."""
    shortest = min(map(len, rows))
    return torch.tensor([row[:1] + row[len(row) - shortest + 1 :] for row in rows])


def _read(model: Any, ids: Tensor, chunk_size: int, on_tokens: Progress) -> Any:
    """Feed all whole execution blocks of the rows; `generate` feeds the rest."""
    cache, end = empty_cache(model), whole_blocks(model, ids.shape[1])
    for part, _ in prefill(model, ids[:, :end], cache, feed_length(model, chunk_size)):
        on_tokens(part.numel())
    on_tokens(ids[:, end:].numel())
    return cache


def _answer(
    model: Any, tokenizer: Any, ids: Tensor, cache: Any, batch: Sequence[Sample]
) -> list[str]:
    """Return the model's greedy answer to each row."""
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        **own_options(tokenizer, max(sample.max_new_tokens for sample in batch))
        | with_cache(model, cache),
    )
    texts: list[str] = tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
    return texts
