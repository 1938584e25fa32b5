"""Decode steps of a layer recorded once and repeated, until a block is full.

A decode step is many small programs, and starting them takes a GPU longer than running
them. Here the step is said so that every tensor stays where it is and every number that changes is
on the device: then all of it starts as one CUDA graph. Tested on a CPU by repeating recorded
operations; NOT YET RUN ON A GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from inf_llm.attention.base import Rule
from inf_llm.kernels import Source, attend_jointly
from inf_llm.memory.block_memory import BlockMemory
from inf_llm.memory.steady import SteadyMemory
from inf_llm.rope import Rope

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes a program, and gives what repeats it; recording does not run it."""


def recorder(device: torch.device) -> Record | None:
    """What records programs on this device, if anything does."""
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    return functools.partial(_cuda_graph, device)


def _cuda_graph(device: torch.device, program: Callable[[], None]) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(device)
    # Other threads may go on using the device meanwhile.
    recording = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
    with torch.cuda.device(device), recording:
        program()

    def repeat() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return repeat


class SteadySteps:
    """One layer's decode steps, while its memory `fits`.

    Args:
        rope: how the layer rotates.
        memory: what it remembers.
        rule: how the model scores.
        record: what records a step.

    Attributes:
        running: whether the newest tokens are here and not in the memory.
    """

    def __init__(self, rope: Rope, memory: BlockMemory, rule: Rule, record: Record) -> None:
        self._rope, self._rule, self._record = rope, rule, record
        self._memory = SteadyMemory(memory)
        device = memory.recent["k"].device
        self._position = torch.zeros(1, dtype=torch.float64, device=device)
        self._frequencies = rope.frequencies.to(device)
        self._far = rope.far_table(memory.keep - 1, device)
        self._inputs: list[Tensor] = []
        self._output = torch.empty(0)
        self._repeat: Callable[[], None] | None = None
        self._known = False  # whether the step has run once, so that its programs are compiled
        self.running = False

    def suits(self, memory: BlockMemory, rule: Rule) -> bool:
        """Whether it is still these rows and this rule; a tensor of it must be the same one."""
        same_sink = rule.learned_sink is self._rule.learned_sink
        return rule.scoring == self._rule.scoring and same_sink and self._memory.suits(memory)

    def holds(self) -> bool:
        """Whether the newest tokens are here, and all else is still where it was."""
        return self.running and self._memory.holds()

    def begin(self, position: int) -> None:
        """Take over from the memory; the next token stands at `position`."""
        if not self._memory.load():
            self._repeat, self._known = None, False
        self._position.fill_(position)
        self.running = True

    def end(self) -> None:
        """Give back to the memory."""
        if self.running:
            self.running = False
            self._memory.unload()

    def step(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One token of every row, as `InfLLMAttention` attends: (B, H, 1, Dv)."""
        if self._repeat is None:
            self._inputs = [x.clone() for x in (q, k, v)]
        for place, x in zip(self._inputs, (q, k, v), strict=True):
            place.copy_(x)
        if not self._known:
            self._output = self._run().clone()
            self._known = True
        else:
            if self._repeat is None:
                self._repeat = self._record(self._program)
            self._repeat()
        self._memory.stepped()
        output = self._output.clone()
        if not self._memory.left:
            self.end()
        return output

    def _program(self) -> None:
        self._output.copy_(self._run())

    def _run(self) -> Tensor:
        """The step: append, look up, attend, observe; see `InfLLMAttention`."""
        (q, k, v), memory = self._inputs, self._memory
        now = self._rope.table_at(self._position, self._frequencies)
        memory.push(k, v, near_k=self._rope.turn(k, now), heads=q.shape[1])
        near_q, far_q = self._rope.turn(q, now), self._rope.turn(q, self._far)
        k, v, places = memory.recall(far_q[:, :, 0])
        ring = memory.ring
        waiting = ring.queue("k"), ring.queue("v")
        sources = [
            Source(near_q, [(ring.window("near_k"), ring.window("v"))], watched=memory.watches),
            Source(far_q, [(k, v)], watched=memory.watches_recalled),
            Source(far_q, [memory.sinks]),
            Source(far_q, [waiting], visible=ring.waits()),
        ]
        o, masses = attend_jointly(sources, self._rule.scoring, self._rule.learned_sink)
        if masses[0] is not None:
            memory.observe(masses[0])
        if masses[1] is not None:
            memory.observe_recalled(places, masses[1])
        self._position += 1
        return o
