"""The memory of a layer between two seals, when every step does the same in the same places.

Nothing here depends on a number that only the host knows, and nothing is brought to the host, so a
step can be recorded once and repeated (CUDA graphs). Blocks are searched in all the room that the
index has; those behind the last one are masked out, on the device.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from inf_llm.memory.block_memory import BlockMemory
from inf_llm.memory.ring import Ring


class SteadyMemory:
    """Takes over from a memory that `fits`, and gives back to it.

    Args:
        memory: whose steps these are.

    Attributes:
        ring: the newest tokens, with their keys as they are ("k") and rotated ("near_k").
        watches: whether the mass that the window receives is wanted.
        left: steps until a block is full.
    """

    def __init__(self, memory: BlockMemory) -> None:
        self._memory = memory
        settings = memory.settings
        self._topk = settings.topk
        self.watches = settings.repr_topk < settings.block_size
        self.ring = Ring(memory.recent, memory.keep, settings.block_size)
        device = memory.recent["k"].device
        self._blocks = torch.zeros(1, dtype=torch.int64, device=device)
        self._table: Tensor | None = None
        self._kept: tuple[object, ...] = ()
        self.left = 0
        self._steps = 0

    @staticmethod
    def fits(memory: BlockMemory) -> bool:
        """Whether the next steps can be the same over and over."""
        archive, sinks = memory.archive, memory.sinks
        if archive is None or sinks is None or not archive.is_steady:
            return False
        full = sinks[0].shape[2] == memory.settings.n_init and len(memory.recent) >= memory.keep
        return full and memory.blocks >= memory.settings.topk

    def suits(self, memory: BlockMemory) -> bool:
        """Whether it was made for this memory, with as many rows."""
        return memory is self._memory and self.ring.fits(memory.recent)

    @property
    def watches_recalled(self) -> bool:
        """Whether the eviction policy wants to know the mass that recalled blocks received."""
        return self._memory.watches_recalled

    @property
    def sinks(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the first tokens."""
        assert self._memory.sinks is not None
        return self._memory.sinks

    def load(self) -> bool:
        """Take over; whether all is where it was the last time, so that records are still true."""
        memory, archive = self._memory, self._memory.archive
        assert archive is not None
        self.ring.load(memory.recent)
        self.left = memory.settings.block_size - (len(memory.recent) - memory.keep)
        self._blocks.fill_(memory.blocks)
        room = archive.prepare_steady()
        before, self._table = self._table, self._own_table(room)
        if before is not None and self._table is not None and before.shape == self._table.shape:
            self._table = before.copy_(self._table)
        if self.holds():
            return True
        self._kept = self._places()
        return False

    def _places(self) -> tuple[object, ...]:
        """What recorded steps know the addresses of; it must live as long as they are repeated."""
        assert self._memory.archive is not None
        return (*self._memory.archive.lasting, *self.sinks, self._table)

    def holds(self) -> bool:
        """Whether nothing has moved; others may share the archive, and need more room."""
        places = self._places()
        return len(places) == len(self._kept) and all(map(operator.is_, places, self._kept))

    def _own_table(self, room: int) -> Tensor | None:
        numbers = self._memory.table
        if numbers is None:
            return None
        table = numbers.new_zeros(numbers.shape[0], room)
        table[:, : numbers.shape[1]] = numbers
        return table.to(self._blocks.device)

    def push(self, k: Tensor, v: Tensor, near_k: Tensor, heads: int) -> None:
        """A new token: keys (B, G, 1, D), values (B, G, 1, Dv), rotated keys, and H."""
        mass = k.new_zeros(k.shape[0], heads, 1, dtype=torch.float32)
        self.ring.push(k=k, v=v, near_k=near_k, mass=mass)

    def recall(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values of the blocks that match query (B, H, D) best, and their places."""
        archive = self._memory.archive
        assert archive is not None
        blocks = archive.search_within(query, self._topk, self._blocks, self._table)
        places, arrive = archive.fetch(blocks)
        return *arrive(), places

    def observe(self, mass: Tensor) -> None:
        """The window's keys received this mass (B, H, keep)."""
        self.ring.window("mass").add_(mass)

    def observe_recalled(self, places: Tensor, mass: Tensor) -> None:
        """The recalled keys received this mass (B, H, topk * block_size)."""
        assert self._memory.archive is not None
        per_block = mass.unflatten(2, (self._topk, -1)).sum(-1)
        self._memory.archive.observed(places, per_block)

    def stepped(self) -> None:
        """A step was made, or repeated."""
        self.left -= 1
        self._steps += 1

    def unload(self) -> None:
        """Give back, and let the memory seal what is ripe."""
        memory = self._memory
        self.ring.unload(memory.recent)
        memory.seen += self._steps
        self._steps = 0
        memory.settle()
