"""The training loop: phases, learning rate, checkpoints, log and progress line."""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from demo_model.geometry import Rotary, View, draw_view, forward
from demo_model.samples import Batch, Mix, Sampler

WINDOWS = (96, 128, 192, 256)


@dataclass(frozen=True)
class Phase:
    """A part of the training with rows of one length.

    Attributes:
        steps: number of batches.
        rows: rows of a batch.
        length: tokens of a row.
        mix: shares of the kinds of rows.
        memory: share of the steps that see far tokens as a block memory shows them.
        crowd: share of those steps that also see other rows.
        windows: distances from which on tokens are far; one is drawn for each such step.
    """

    steps: int
    rows: int
    length: int
    mix: Mix
    memory: float = 0.0
    crowd: float = 0.0
    windows: tuple[int, ...] = WINDOWS


def plan(tokens: int, context: int, grown: bool = False) -> list[Phase]:
    """Return phases of about `tokens` tokens in all, first with short rows, then with full ones.

    The first three phases teach the model to look things up, in short rows, then in long ones;
    below 16 million tokens they shrink in proportion. The last phase adds facts that are hard to
    separate. A grown model has a single phase with such facts.
    """
    share = min(1.0, tokens / 16_000_000)

    def steps(full: int) -> int:
        return max(1, round(full * share))

    easy, hard = Mix(prose=0.4, copies=0.03), Mix(prose=0.3, copies=0.02, hard=0.6)
    half = Mix(prose=0.3, copies=0.15)
    windows = (96, 128, 128, 192)
    if grown:
        far = Mix(prose=0.25, copies=0.25, hard=0.6, alike=1.0)
        return [Phase(max(1, tokens // (16 * context)), 16, context, far, 0.4, 0.6, windows)]
    first = [
        Phase(steps(600), 64, 96, Mix(prose=0.2, copies=0.5)),
        Phase(steps(200), 32, context // 2, half, memory=0.3, crowd=0.5),
        Phase(steps(700), 16, context, easy, memory=0.4, crowd=0.5),
    ]
    used = sum(phase.steps * phase.rows * phase.length for phase in first)
    rest = max(1, (tokens - used) // (16 * context))
    return [*first, Phase(rest, 16, context, hard, 0.4, 0.6, windows)]


@dataclass(frozen=True)
class Options:
    """Options of a run, besides its text and plan."""

    seed: int = 0
    rate: float = 2e-3
    warmup: int = 100
    cooldown: float = 0.25
    compile: bool = False
    save_every: int = 250
    log_every: int = 50


@dataclass
class Tally:
    """Sums over the steps since the last line of the log."""

    loss: list[float] = field(default_factory=list)
    prose: list[float] = field(default_factory=list)
    right: int = 0
    asked: int = 0

    def row(self) -> dict[str, float | None]:
        """Return the means; None where nothing was counted."""
        return {
            "loss": _mean(self.loss),
            "prose_loss": _mean(self.prose),
            "answer_accuracy": round(self.right / self.asked, 4) if self.asked else None,
        }


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def rate_factor(step: int, total: int, warmup: int, cooldown: float) -> float:
    """Return the factor of the learning rate: rising, level, then falling to a fiftieth.

    It falls over the last share `cooldown` of the run. Before that, it does not depend on the total
    number of steps: a longer run can continue from the same checkpoint.
    """
    rest = (total - step) / max(1.0, cooldown * total)
    return min(1.0, (step + 1) / warmup, max(0.02, rest))


class Trainer:
    """A training run that can be resumed.

    Args:
        model: the model, trained in place, on its device.
        sampler: source of the batches.
        phases: the plan of the run.
        options: see `Options`.
        folder: folder of `checkpoint.pt` and `log.json`.
    """

    def __init__(
        self,
        model: LlamaForCausalLM,
        sampler: Sampler,
        phases: list[Phase],
        options: Options,
        folder: Path,
    ) -> None:
        self.model, self.phases, self.options = model, phases, options
        self._sampler, self._folder = sampler, folder
        self._device = next(model.parameters()).device
        length = max(phase.length for phase in phases)
        self._rotary = Rotary(int(model.config.head_dim or 0), length, self._device)
        self._optimizer = self._make_optimizer()
        self._total = sum(phase.steps for phase in phases)
        self.step = 0
        self._tokens = 0
        self._seconds = 0.0
        self.log: list[dict[str, Any]] = []
        self._tally = Tally()
        self._losses: Callable[[Tensor, Tensor, View | None], tuple[Tensor, ...]] = self._compute
        if options.compile:
            self._losses = torch.compile(self._compute, dynamic=False)

    def _make_optimizer(self) -> torch.optim.AdamW:
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        others = [p for p in self.model.parameters() if p.dim() == 1]
        groups = [
            {"params": matrices, "weight_decay": 0.05},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.options.rate, betas=(0.9, 0.95))

    @property
    def _checkpoint(self) -> Path:
        return self._folder / "checkpoint.pt"

    def resume(self) -> bool:
        """Continue from the checkpoint; return False if the folder has none."""
        if not self._checkpoint.exists():
            return False
        state = torch.load(self._checkpoint, map_location=self._device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self._tokens, self._seconds = state["step"], state["tokens"], state["seconds"]
        self.log = state["log"]
        return True

    def save(self) -> None:
        """Write the checkpoint, then the log; a crash while writing keeps the old checkpoint."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "tokens": self._tokens,
            "seconds": self._seconds,
            "log": self.log,
        }
        fresh = self._checkpoint.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self._checkpoint)
        (self._folder / "log.json").write_text(json.dumps(self.log, indent=1) + "\n")

    def run(self) -> None:
        """Train to the end of the plan."""
        self.model.train()
        first = 0
        for phase in self.phases:
            last = first + phase.steps
            while first <= self.step < last:
                self._advance(phase)
            first = last
        self.save()

    def _advance(self, phase: Phase) -> None:
        started = time.perf_counter()
        batch = self._sampler.batch(self.step, phase.rows, phase.length, phase.mix)
        self._learn(batch, self._view(phase, batch))
        self.step += 1
        self._tokens += phase.rows * phase.length
        self._seconds += time.perf_counter() - started
        if self.step % self.options.log_every == 0 or self.step == self._total:
            self._write_line()
        if self.step % self.options.save_every == 0:
            self.save()

    def _view(self, phase: Phase, batch: Batch) -> View | None:
        """Draw the view of far tokens of this step, from the step's own seed; None for no view."""
        rng = random.Random(f"view/{self.options.seed}/{self.step}")
        if rng.random() >= phase.memory:
            return None
        window = rng.choice([size for size in phase.windows if size <= phase.length // 2])
        generator = torch.Generator().manual_seed(rng.getrandbits(60))
        return draw_view(batch.kind, batch.asks, window, rng.random() < phase.crowd, generator)

    def _learn(self, batch: Batch, view: View | None) -> None:
        ids, weight = batch.ids.to(self._device), batch.weight.to(self._device)
        view = None if view is None else _on(view, self._device)
        loss, losses, right = self._losses(ids, weight, view)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        options = self.options
        factor = rate_factor(self.step, self._total, options.warmup, options.cooldown)
        for group in self._optimizer.param_groups:
            group["lr"] = options.rate * factor
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._count(batch, losses.cpu(), right.cpu(), float(loss.detach()))

    def _compute(self, ids: Tensor, weight: Tensor, view: View | None) -> tuple[Tensor, ...]:
        """Return the weighted loss, the loss of each token, and whether it was predicted (B, T)."""
        with torch.autocast(self._device.type, torch.bfloat16):
            logits = forward(self.model, self._rotary, ids[:, :-1], view)
        logits, targets = logits.float(), ids[:, 1:]
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        losses = losses.view_as(weight)
        loss = (losses * weight).sum() / weight.sum()
        return loss, losses.detach(), logits.detach().argmax(-1) == targets

    def _count(self, batch: Batch, losses: Tensor, right: Tensor, loss: float) -> None:
        tally, prose = self._tally, batch.weight == 1.0
        tally.loss.append(loss)
        if prose.any():
            tally.prose.append(float(losses[prose].mean()))
        tally.right += int(right[batch.asks].sum())
        tally.asked += int(batch.asks.sum())

    def _write_line(self) -> None:
        row = {"step": self.step, "tokens": self._tokens, "seconds": round(self._seconds, 1)}
        self.log.append({**row, **self._tally.row()})
        self._tally = Tally()
        left = self._seconds / self.step * (self._total - self.step) / 60
        values = ", ".join(f"{key} {value}" for key, value in self.log[-1].items())
        print(f"{values} (of {self._total} steps, about {left:.0f} min left)", file=sys.stderr)
        sys.stderr.flush()


def _on(view: View, device: torch.device) -> View:
    """Move the tensors of a view to a device."""
    crowd = None if view.crowd is None else view.crowd.to(device)
    asks, seen = view.asks.to(device), view.recalled.to(device)
    return View(
        view.window.to(device), seen, view.answering.to(device), asks, crowd, view.end, view.group
    )


def can_compile() -> bool:
    """Whether torch.compile is likely to work: it needs a C++ compiler."""
    return any(shutil.which(name) for name in ("g++", "clang++", "cl"))
