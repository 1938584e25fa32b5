"""Measure the costs of a model on this machine, after a document that is not read completely.

Most of the document is filled with copies of keys and values that the memory already holds, as
`inf-llm plan --calibrate` does. Attention and search then do the same work as after a document that
was read.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmark.simulation.costs import Costs
from inf_llm.cli.options import load_quietly
from inf_llm.config import RunConfig
from inf_llm.demo.trial import haystack_text
from inf_llm.errors import InfLLMError
from inf_llm.generation import Session, encode
from inf_llm.generation.decoding import Decoding, step
from inf_llm.generation.options import answer_options
from inf_llm.generation.prefill import execution_block
from inf_llm.plan.budget import text_bytes
from inf_llm.plan.calibrate import Clock, calibrate, fill
from inf_llm.processor import machine

QUESTION, ROWS = 50, 8
"""Number of tokens of a question, and of answers in one batch."""
_STEPS, _ASKED = 6, 3  # number of timed tokens per answer, and of timed questions
_PIECE = 512


CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Clocks by name; `cpu` is for one thread on a machine that runs other programs."""


def measure(config: RunConfig, tokens: int, folder: Path, clock_name: str = "wall") -> Costs:
    """Load a model and measure its costs.

    Args:
        config: configuration of the model.
        tokens: number of tokens of a document.
        folder: folder in which the document's memory is temporarily saved and opened.
        clock_name: one of `CLOCKS`. Opening is always timed with the wall clock, because it waits
            for the disk.

    Raises:
        InfLLMError: the memory size of a document is not known, or the memory cannot be saved.
    """
    clock = CLOCKS[clock_name]
    model, tokenizer = load_quietly(config)
    held = text_bytes(model, config)
    if held is None:
        raise InfLLMError(f"{config.model.path} does not say what it holds of a text")
    pace = calibrate(model, tokens, config.chunk_size, clock)
    session = _filled(model, tokenizer, config.chunk_size, pace.first, tokens)
    first = statistics.median(_ask(session.fork(), clock)[0] for _ in range(_ASKED))
    return Costs(
        model=str(config.model.path),
        machine=machine("cpu"),
        how=f"threads: {torch.get_num_threads()}, clock: {clock_name}",
        dtype=pace.dtype,
        tokens=tokens,
        bytes=held.of(tokens),
        reading=pace.reading(tokens) / tokens,
        opening=_opening(session, folder),
        asking=max(0.0, first - QUESTION * pace.far.reading),
        question=pace.far.reading,
        answering=_answering(session, 1, clock),
        together=_answering(session, ROWS, clock),
        rows=ROWS,
    )


def _filled(model: Any, tokenizer: Any, chunk: int, first: int, tokens: int) -> Session:
    """Return a session with a document of at most `tokens` tokens, only the first of them read.

    The length differs from `tokens` by less than an execution block. The last half block is not
    yet fed, which is the average for documents of all lengths.
    """
    block = execution_block(model)
    text = encode(tokenizer, haystack_text())
    session = Session(model, tokenizer, chunk)
    session.read(text[: first + block // 2])
    more = (tokens - len(session.ids)) // block * block
    if more > 0:
        fill(session.cache, more, _PIECE)
        session.ids[:0] = (text * (more // len(text) + 1))[:more]
    return session


def _ask(session: Session, clock: Clock) -> tuple[float, Decoding]:
    """Return the seconds to the first token of an answer, and the row that decodes the rest."""
    longest = _STEPS + 2
    options = answer_options(session.model, session.tokenizer, longest, {"min_new_tokens": longest})
    began = clock()
    session.read(session.ids[:QUESTION])
    row = Decoding(session, options)
    step([row])
    return clock() - began, row


def _answering(session: Session, count: int, clock: Clock) -> float:
    """Return the median seconds of a decoding step for `count` answers."""
    rows = [_ask(session.fork(), clock)[1] for _ in range(count)]
    took = []
    for _ in range(_STEPS + 1):
        began = clock()
        step(rows)
        took.append(clock() - began)
    return statistics.median(took[1:])  # the first step also builds the batch


def _opening(session: Session, folder: Path) -> float:
    """Return the additional seconds to the first token if the memory is on the disk."""
    wall = time.perf_counter
    with tempfile.TemporaryDirectory(dir=folder, prefix="memory-") as name:
        session.save(name)
        _leave_to_disk(Path(name))
        began = wall()
        opened = Session.load(name, session.model, session.tokenizer, session.chunk_size)
        loading = wall() - began
        return max(loading, loading + _ask(opened, wall)[0] - _ask(session.fork(), wall)[0])


def _leave_to_disk(folder: Path) -> None:
    """Drop the files of a folder from the system's page cache, if the system supports this."""
    for file in folder.iterdir() if hasattr(os, "posix_fadvise") else ():
        with file.open("rb") as opened, contextlib.suppress(OSError):
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
