"""The report of a plan, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from inf_llm.config import RunConfig
from inf_llm.hf.dtype import dtype_name
from inf_llm.hf.outline import Outline
from inf_llm.plan.bytes import Plan, make_plan
from inf_llm.plan.fit import Change, Room, codecs, nearest
from inf_llm.plan.pace import Pace
from inf_llm.settings import InfLLMSettings
from inf_llm.units import short, size

UNKNOWN = "unknown: --calibrate"
_PLACES = ("window", "recalled", "blocks", "index", "host_index", "tables")


@dataclass(frozen=True)
class Report:
    """All parts of a plan, ready to be printed.

    Attributes:
        config: the configuration that is planned.
        model: the outline of its model.
        room: the available memory.
        plans: plans by the name of their codec; the first is that of the configuration.
        nearest: changed settings that fit; empty if the first plan fits.
        pace: the measured speed; None if none was measured.
    """

    config: RunConfig
    model: Outline
    room: Room
    plans: dict[str, Plan]
    nearest: tuple[Change, ...]
    pace: Pace | None

    @property
    def own(self) -> Plan:
        """The plan of the configuration."""
        return next(iter(self.plans.values()))

    def plain(self) -> dict[str, Any]:
        """Return the report in plain types, with sizes in bytes and times in seconds."""
        plan = self.own
        return {
            "model": self.config.model.path,
            "type": self.config.attention.type,
            "tokens": plan.tokens,
            "dtype": dtype_name(plan.dtype),
            "weights": plan.weights,
            "working": plan.working,
            "process": plan.process,
            "files": self.model.file_bytes,
            "room": asdict(self.room),
            "lacks": self.room.lacks(plan),
            "plans": {name: self._plain_plan(each) for name, each in self.plans.items()},
            "nearest": [{"keys": c.keys, **self._plain_plan(c.plan)} for c in self.nearest],
            "seconds": UNKNOWN if self.pace is None else self._seconds(self.pace),
        }

    def _plain_plan(self, plan: Plan) -> dict[str, Any]:
        fits = self.room.lacks(plan) is None
        sums = {"tokens": plan.tokens, "device": plan.device, "host": plan.host, "disk": plan.disk}
        return {**sums, "fits": fits, **{place: getattr(plan.held, place) for place in _PLACES}}

    def _seconds(self, pace: Pace) -> dict[str, float]:
        tokens = self.own.tokens
        return {"reading": pace.reading(tokens), "per_answered_token": pace.answering(tokens)}

    def table(self) -> Table:
        """Return a table with one row per codec."""
        made = Table(title_justify="left", title_style="bold")
        length, kind = short(self.own.tokens), self.config.attention.type
        made.title = f"{self.config.model.path}, {length} tokens, {kind}"
        for head in ("codec", "window", "recalled", "blocks", "summaries", "device", "host", ""):
            made.add_column(head, justify="left" if head in ("codec", "") else "right")
        for name, plan in self.plans.items():
            held = plan.held
            summaries = held.index + held.host_index
            places = held.window, held.recalled, held.blocks, summaries, plan.device, plan.host
            fits = "fits" if self.room.lacks(plan) is None else "does not fit"
            made.add_row(name, *map(size, places), fits)
        return made

    def lines(self) -> Iterator[str]:
        """Yield the lines below the table."""
        plan, files = self.own, self.model.file_bytes
        on_disk = f", {size(files)} on disk" if files else ""
        yield f"weights: {size(plan.weights)} in {dtype_name(plan.dtype)}{on_disk}"
        at_once = f"{self.config.chunk_size:,} tokens at a time"
        yield f"to compute with: {size(plan.working)}, {at_once}"
        yield f"the process: {size(plan.process)} of host memory, with its libraries"
        if plan.disk:
            yield f"in files of the tier: {size(plan.disk)} of the blocks"
        has = (("device", self.room.device), ("host", self.room.host))
        there = [f"{place} {size(count)}" for place, count in has if count is not None]
        yield f"memory: {', '.join(there) or 'not known'}"
        yield f"time: {UNKNOWN if self.pace is None else self._times(self.pace)}"
        lacking = self.room.lacks(plan)
        if lacking is not None:
            yield f"does not fit: {lacking}"
            yield from self._would()

    def _would(self) -> Iterator[str]:
        yield "each of these fits:" if self.nearest else "nothing near it fits"
        for change in self.nearest:
            made = change.plan
            device = f"device {size(made.device)}, " if made.apart else ""
            yield f"\n# {short(made.tokens)} tokens, {device}host {size(made.host)}"
            yield from change.yaml()

    def _times(self, pace: Pace) -> str:
        seconds = self._seconds(pace)
        answering = 1e3 * seconds["per_answered_token"]
        return f"{seconds['reading']:.1f} s to read, {answering:.0f} ms for a token of the answer"


def make_report(
    model: Outline, config: RunConfig, tokens: int, room: Room, pace: Pace | None
) -> Report:
    """Plan a text of `tokens` tokens.

    Raises:
        UnsupportedModelError: a layer has an attention type that cannot be planned.
    """
    apart, settings = room.device is not None, config.attention
    plan = make_plan(model, config, tokens, apart)
    name = settings.codec.name if isinstance(settings, InfLLMSettings) else "-"
    others = {c.keys["model.codec"]: c.plan for c in codecs(model, config, tokens, apart)}
    near = () if room.lacks(plan) is None else tuple(nearest(model, config, tokens, room))
    return Report(config, model, room, {name: plan, **others}, near, pace)
