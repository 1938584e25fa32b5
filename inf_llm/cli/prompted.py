"""The answer to one prompt, on standard output."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inf_llm.cli.failures import say
from inf_llm.cli.open_text import OpenText, open_text
from inf_llm.cli.options import load_with_progress, memory_line
from inf_llm.cli.progress import TokenProgress
from inf_llm.conversation import BETWEEN, USER
from inf_llm.units import pace, size

if TYPE_CHECKING:
    from inf_llm.config import RunConfig
    from inf_llm.formats import DocumentText
    from inf_llm.generation import Answer, Landmarks, Layout, Session
    from inf_llm.hf.trace import trace as Tracing


def answer_prompt(
    chosen: RunConfig,
    memory: Path | None,
    document: DocumentText,
    prompt: str,
    max_new_tokens: int,
    trace: Path | None,
    force: bool,
) -> None:
    """Answer a prompt about a document, a memory, or a memory with a document after it.

    Raises:
        SavedMemoryError: the memory is damaged, or belongs to another model.
        TextError: the prompt is longer than max_len.
        RoomError: the model or the text does not fit, and `force` is not set.
    """
    if memory is None:
        _read_and_answer(chosen, document, prompt, max_new_tokens, trace, force)
    else:
        opened = open_text(chosen, memory, document, force)
        _answer_from(opened, prompt, max_new_tokens, trace)


def _answer_from(opened: OpenText, prompt: str, max_new_tokens: int, trace: Path | None) -> None:
    """Answer a question about a text that is open, on standard output."""
    from transformers import TextStreamer

    from inf_llm.hf.trace import trace as tracing

    session = opened.session
    new = opened.prompt(prompt, max_new_tokens)
    tokens = len(session.ids) + len(new)
    watch = None if trace is None else tracing(session.model, prompts=False)
    streamer = TextStreamer(session.tokenizer, skip_special_tokens=True)
    with watch or contextlib.nullcontext():
        answer = opened.ask(session, new, max_new_tokens, streamer)
    count = len(answer.token_ids)
    say(f"answered {count} in {pace(count, answer.seconds)}; memory {memory_line(session.stats())}")
    if watch is not None and trace is not None:
        title = f"{opened.subject.config.model.path}: {prompt}"
        _report(watch, session, tokens, trace, title, opened.subject.landmarks)


def _read_and_answer(
    chosen: RunConfig,
    document: DocumentText,
    prompt: str,
    max_new_tokens: int,
    trace: Path | None,
    force: bool,
) -> None:
    """Read a text with its question, as one prompt, and answer on standard output."""
    from transformers import TextStreamer

    from inf_llm.generation import Landmarks, Session, answer_ends, choose_layout
    from inf_llm.hf.trace import trace as tracing
    from inf_llm.plan.refuse import require_room

    loaded, tokenizer = load_with_progress(chosen, force)
    layout = choose_layout(tokenizer, chosen.conv_type, chosen.control_tokens)
    message = BETWEEN.join(part for part in (document.text, prompt) if part)
    ids = _prompt_ids(tokenizer, layout, message, chosen, max_new_tokens)
    if not force:
        require_room(chosen, len(ids) + max_new_tokens, loaded.dtype)
    watch = None if trace is None else tracing(loaded, prompts=False)
    session = Session(loaded, tokenizer, chosen.chunk_size)
    with TokenProgress(lambda: memory_line(session.stats())) as progress:
        session.read(ids, progress)
        reading = pace(session.fed, progress.seconds)
    with watch or contextlib.nullcontext():
        answer = session.ask(
            max_new_tokens=max_new_tokens,
            streamer=TextStreamer(tokenizer, skip_special_tokens=True),
            eos_token_id=answer_ends(loaded, layout),
        )
    say(_summary(session, answer, len(ids), reading))
    if watch is not None and trace is not None:
        title = f"{chosen.model.path}: {prompt}"
        _report(watch, session, len(ids), trace, title, [Landmarks.of(document)])


def _prompt_ids(
    tokenizer: Any, layout: Layout, message: str, config: RunConfig, max_new_tokens: int
) -> list[int]:
    from inf_llm.generation import encode, fit

    prompt = layout.prompt([{"role": USER, "content": message}])
    ids = encode(tokenizer, prompt, layout.adds_special)
    kept = fit(ids, config.max_len - max_new_tokens, config.truncation)
    if len(kept) < len(ids):
        say(f"cut the prompt from {len(ids):,} to {len(kept):,} tokens ({config.truncation})")
    return kept


def _report(
    watch: Tracing,
    session: Session,
    prompt_tokens: int,
    path: Path,
    title: str,
    landmarks: Sequence[Landmarks],
) -> None:
    from inf_llm.generation import save_report

    save_report(
        watch,
        session.ids,
        session.tokenizer,
        path,
        prompt_tokens=prompt_tokens,
        title=title[:300],
        landmarks=landmarks,
    )
    say(f"what was recalled for each word: {path}")


def _summary(session: Session, answer: Answer, tokens: int, reading: str) -> str:
    stats, new = session.stats(), len(answer.token_ids)
    recalled = stats.hits + stats.misses
    parts = [
        f"read {tokens:,} tokens in {reading}",
        f"answered {new} in {pace(new, answer.seconds)}",
        f"memory {memory_line(stats)}",
    ]
    if recalled:
        parts.append(f"index {size(stats.index_bytes)}")
        parts.append(f"{stats.blocks:,} blocks, {stats.hits / recalled:.0%} of recalls at hand")
    return "; ".join(parts)
