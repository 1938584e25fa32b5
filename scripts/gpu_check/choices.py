"""Checks of every choice of a setting, of saved memories, and of answers decoded together."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import inf_llm
from gpu_check.check import Check, DifferenceError, Figures, load
from inf_llm import variants
from inf_llm.config import SHIPPED_CONFIGS, load_config
from inf_llm.demo import plan
from inf_llm.generation import Session
from inf_llm.generation.decoding import Decoding
from inf_llm.generation.options import answer_options
from inf_llm.generation.prefill import feed
from inf_llm.generation.rows import feed_all
from inf_llm.hf.load import load_bare
from inf_llm.registry import Registry
from inf_llm.settings import InfLLMSettings

SIZES = {"n_init": 16, "n_local": 128, "block_size": 16, "topk": 4, "exc_block_size": 64}
SIZES |= {"max_cached_block": 6}
KINDS: dict[str, Registry] = {
    "summary": variants.SUMMARY,
    "selection": variants.SELECTION,
    "far_positions": variants.FAR_POSITIONS,
    "eviction": variants.EVICTION,
    "index": variants.INDEX,
    "codec": variants.CODEC,
    "tier": variants.TIER,
}
SUMS = {"summary": "mean", "selection": {"name": "layer", "scores": "sum"}}
"""Settings that an index with one vector per block needs."""
NEW = 12
"""Number of tokens of an answer."""
TOLERANCE = 0.02
"""Nats by which the log-probability of a token may differ between CPU and device, in float32."""


def choices(check: Check) -> Figures:
    """Answer on the CPU with every choice, and compare the device's log-probabilities with it."""
    models = [_bare(torch.device("cpu")), _bare(check.device)]
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, setting in _settings(Path(folder)):
            try:
                figures[name] = _both(models, InfLLMSettings(**SIZES | setting), check)
            except inf_llm.InfLLMError as error:  # not for this device, or not installed
                figures[name] = {"left_out": str(error)}
    wrong = [name for name, found in figures.items() if found.get("apart", 0) > TOLERANCE]
    if wrong:
        raise DifferenceError(f"differ from the CPU: {', '.join(wrong)}", figures)
    return figures


def _settings(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield settings by name, each with one choice set."""
    disk = {"name": "disk", "path": str(folder), "host_bytes": "1MiB"}
    for kind, names in KINDS.items():
        for name in names:
            more = SUMS if kind == "index" and name != "two-stage" else {}
            yield f"{kind}: {name}", {kind: disk if name == "disk" else name} | more
    yield "prefill: dense", {"prefill": "dense"}
    yield "prefill: auto", {"prefill": "auto", "dense_up_to": 256}
    yield "async_global_stream", {"async_global_stream": True}


def _bare(device: torch.device) -> tuple[Any, Any]:
    """Return the embedded model, not patched, and its tokenizer."""
    place = [f"model.device_map={device}", "model.dtype=float32"]
    return load_bare(load_config(SHIPPED_CONFIGS / "demo-inf-llm.yaml", place))


def _both(models: list[tuple[Any, Any]], settings: InfLLMSettings, check: Check) -> Figures:
    sessions = []
    for model, tokenizer in models:
        (sample,) = plan(tokenizer, "passkey", 300 if check.small else 2048, 1, 0)
        sessions.append(Session(inf_llm.patch(model, settings), tokenizer, 2048))
        sessions[-1].read(sample.prompt)
    new = 4 if check.small else NEW
    answer = list(sessions[0].fork().ask(max_new_tokens=new, eos_token_id=None).token_ids)
    here, there = (_likelihoods(session.fork(), answer) for session in sessions)
    for model, _ in models:
        inf_llm.unpatch(model)
    return {"found": sample.found(models[0][1].decode(answer)), "apart": _apart(here, there)}


def _likelihoods(session: Session, answer: list[int]) -> Tensor:
    """Return the log-probabilities (n,) of an answer's tokens, fed one by one."""
    with torch.no_grad():
        logits = feed(session.model, session.tensor(session.ids)[:, session.fed :], session.cache)
        last_logits = [logits[0, -1]]
        for token in answer[:-1]:
            logits = feed(session.model, session.tensor([token]), session.cache)
            last_logits.append(logits[0, -1])
    scores = torch.stack(last_logits).float().log_softmax(-1).cpu()
    return scores.gather(1, torch.tensor(answer)[:, None])[:, 0]


def _apart(here: Tensor, there: Tensor) -> float:
    return float((here - there).abs().max())


def saved(check: Check) -> Figures:
    """Open memories that the CPU and the device saved, each on both, and compare the answers."""
    cpu = torch.device("cpu")
    pairs = {"cpu": load("inf-llm", cpu, "model.dtype=float32")}
    pairs["device"] = load("inf-llm", check.device, "model.dtype=float32")
    (sample,) = plan(pairs["cpu"][1], "passkey", 1024 if check.small else 8192, 1, 0)
    figures: Figures = {}
    likelihoods: dict[str, Tensor] = {}
    answer: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, tokenizer) in pairs.items():
            session = Session(model, tokenizer, 2048)
            session.read(sample.prompt)
            session.save(Path(folder) / name)
            if not answer:
                reply = session.fork().ask(max_new_tokens=NEW, eos_token_id=None)
                answer = list(reply.token_ids)
            likelihoods[name] = _likelihoods(session, answer)
        for name in pairs:
            for where, (model, tokenizer) in pairs.items():
                before = time.perf_counter()
                session = Session.load(Path(folder) / name, model, tokenizer)
                seconds = time.perf_counter() - before
                apart = _apart(likelihoods[name], _likelihoods(session, answer))
                figures[f"saved on {name}, opened on {where}"] = {"apart": apart, "load": seconds}
    same = all(figures[f"saved on {x}, opened on {x}"]["apart"] == 0 for x in pairs)
    if not same or any(row["apart"] > TOLERANCE for row in figures.values()):
        raise DifferenceError("a memory goes on otherwise than the one that was saved", figures)
    return figures


def together(check: Check) -> Figures:
    """Compare answers of four memories of different lengths, decoded together and separately."""
    model, tokenizer = load("inf-llm", check.device, "model.dtype=float32")
    lengths = (300, 400, 500, 600) if check.small else (1024, 2048, 4096, 6144)
    sessions = []
    for length in lengths:
        (sample,) = plan(tokenizer, "passkey", length, 1, 0)
        sessions.append(Session(model, tokenizer, 2048))
        sessions[-1].read(sample.prompt)
    options = answer_options(model, tokenizer, 2 * NEW, {"eos_token_id": None})
    figures: Figures = {}
    answers: dict[str, Any] = {}
    for name, size in (("each by itself", 1), ("together", len(sessions))):
        rows = [Decoding(session.fork(), options) for session in sessions]
        check.wait()
        before = time.perf_counter()
        for first in range(0, len(rows), size):
            _answer(rows[first : first + size])
        check.wait()
        figures[name] = {"ms": 1e3 * (time.perf_counter() - before) / (2 * NEW)}
        answers[name] = [row.new for row in rows]
    if answers["together"] != answers["each by itself"]:
        raise DifferenceError("answers differ when they are given together", figures | answers)
    return figures


def _answer(rows: list[Decoding]) -> None:
    while not rows[0].over:
        for row, logits in zip(rows, feed_all(rows), strict=True):
            row.choose(logits)
