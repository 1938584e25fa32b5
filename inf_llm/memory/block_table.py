"""The table that maps the blocks of each batch row to physical blocks of a store."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from inf_llm.memory.block_store import BlockStore
from inf_llm.state import BlockReader, BlockWriter, State, Stateful


class BlockTable(Stateful):
    """Physical block numbers (B, N) of each row's blocks; the table holds these blocks."""

    def __init__(self) -> None:
        self.store: BlockStore | None = None
        self._state: list[Tensor] = [torch.empty(1, 0, dtype=torch.int64)]
        self._count = 0
        self._plain = True
        self._finalizer: weakref.finalize | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def physical(self) -> Tensor | None:
        """Physical numbers (B, N) on the host; None for a single row with blocks 0 to N - 1."""
        return None if self._plain else self._state[0][:, : self._count]

    def add(self, numbers: Tensor) -> None:
        """Append blocks (B, n), which are already held once for this table."""
        rows, count = numbers.shape
        room = self._state[0]
        if self._count + count > room.shape[1]:
            needed = self._count + count
            fresh = torch.empty(rows, needed + max(64, needed // 8), dtype=torch.int64)
            if self._count:
                fresh[:, : self._count] = room[:, : self._count]
            self._state[0] = fresh
        following = torch.arange(self._count, self._count + count)
        self._plain = self._plain and rows == 1 and torch.equal(numbers[0], following)
        self._state[0][:, self._count : self._count + count] = numbers
        self._count += count
        self._watch()

    def _watch(self) -> None:
        """Set a finalizer that releases the blocks of this table when it is collected."""
        if self._finalizer is not None:
            self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _release, self.store, self._held())
        self._finalizer.atexit = False

    def _held(self) -> Tensor:
        return self._state[0][:, : self._count]

    def fork(self) -> BlockTable:
        """Return a copy, which is one more holder of the same blocks."""
        twin = BlockTable()
        twin.store, twin._count, twin._plain = self.store, self._count, self._plain
        twin._state = [self._state[0].clone()]
        if self.store is not None and self._count:
            self.store.hold(twin._held().flatten())
            twin._watch()
        return twin

    def checkpoint(self) -> State:
        """Return the current number of blocks; a checkpoint itself holds no block."""
        return State({}, {"count": self._count}, {})

    def rollback(self, state: State) -> None:
        """See `Stateful.rollback`."""
        self.cut(state.numbers["count"])

    def cut(self, count: int) -> None:
        """Release all blocks after the first `count` of each row."""
        if count == self._count:
            return
        gone = self._state[0][:, count : self._count].flatten()
        self._count = count
        self._watch()
        if self.store is not None:
            self.store.release(gone)

    def dump(self, blocks: BlockWriter) -> State:
        """Return the file numbers of every row's blocks, and the name of their store in files."""
        if self.store is None:
            return State({"held": None}, {"store": None}, {})
        name, numbers = blocks.put(self.store, self._held())
        return State({"held": numbers}, {"store": name}, {})

    def restore(self, state: State, blocks: BlockReader) -> None:
        """See `Stateful.restore`; `store` already has these blocks, numbered as in files."""
        if self.store is not None:
            held = state.tensors["held"].cpu()
            self.store.hold(held.flatten())
            self.add(held)

    def select_rows(self, rows: Tensor) -> None:
        """See `Stateful.select_rows`."""
        rows = rows.cpu()
        if not self._count or self.store is None:
            self._state = [torch.empty(1, 0, dtype=torch.int64)]
            return
        before = self._held().flatten()
        self._state[0] = self._state[0].index_select(0, rows)
        self._plain = self._plain and len(rows) == 1
        self.store.hold(self._held().flatten())
        self._watch()
        self.store.release(before)


def _release(store: BlockStore | None, numbers: Tensor) -> None:
    if store is not None:
        store.release_later(numbers.flatten())
