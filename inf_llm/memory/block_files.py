"""Conversion of the sealed blocks of a cache to the segments of a folder, and back."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inf_llm.errors import SavedMemoryError
from inf_llm.memory.block_store import BlockStore
from inf_llm.memory.codec import PageShape
from inf_llm.memory.file_numbers import FileNumbers
from inf_llm.memory.index_files import CHECKS, Index, lengths, of_store
from inf_llm.memory.mapped import MappedBlocks, checksums
from inf_llm.saved.segment import Rows
from inf_llm.state import State

_AT_ONCE = 64 << 20  # most bytes of blocks in one piece that is written


@dataclass(frozen=True)
class StoreFacts:
    """The manifest's entry for one store.

    Attributes:
        heads: number of key heads; each has one page in every block.
        tokens: tokens of a block.
        key_width: elements of a key.
        value_width: elements of a value.
        dtype: dtype of keys and values, as "float16".
        query_heads: number of query heads.
        rows: batch rows that recall blocks at once.
        blocks: number of blocks; they are numbered from 0.
        block_bytes: bytes of one block.
    """

    heads: int
    tokens: int
    key_width: int
    value_width: int
    dtype: str
    query_heads: int
    rows: int
    blocks: int
    block_bytes: int

    @property
    def shape(self) -> PageShape:
        """Sizes and dtype of one block."""
        dtype = getattr(torch, self.dtype)
        return PageShape(self.heads, self.tokens, self.key_width, self.value_width, dtype)


class StoreWriter:
    """Assigns file numbers to blocks, and collects blocks to write; see `state.BlockWriter`.

    Use it in a `with` statement. Its end drops the file numbers that were not committed.

    Args:
        memory: id of the saved memory.
        names: names of the stores that the folder already contains.
    """

    def __init__(self, memory: str, names: Iterable[str]) -> None:
        self._memory = memory
        self._uncommitted = f"{memory} {uuid.uuid4().hex}"
        self._names = set(names)
        self._stores: dict[int, tuple[BlockStore, FileNumbers]] = {}
        self._new: list[tuple[BlockStore, str, Tensor]] = []

    def put(self, store: BlockStore, numbers: Tensor) -> tuple[str, Tensor]:
        """See `state.BlockWriter`."""
        known = self._stores.get(id(store))
        with store.releasing:  # another thread may release blocks, whose numbers are used again
            numbering = store.file_numbers.get(self._memory) if known is None else known[1]
            numbering, new = (numbering or FileNumbers(self._name())).with_more(numbers.flatten())
            store.file_numbers[self._uncommitted] = numbering
        self._stores[id(store)] = store, numbering
        if len(new):
            self._new.append((store, numbering.name, new))
        return numbering.name, numbering.of(numbers)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *error: object) -> None:
        for store, _ in self._stores.values():
            with store.releasing:
                store.file_numbers.pop(self._uncommitted, None)

    def _name(self) -> str:
        name = str(max((int(name) for name in self._names), default=-1) + 1)
        self._names.add(name)
        return name

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return the manifest's entries, `StoreFacts` as dictionaries, by name of the store."""
        return {
            numbering.name: asdict(_facts(store, numbering))
            for store, numbering in self._stores.values()
        }

    def slots(self) -> dict[str, State]:
        """Return the slot table of each store, by name of the store."""
        return {
            numbering.name: _slots(store, numbering) for store, numbering in self._stores.values()
        }

    @property
    def has_new(self) -> bool:
        """Whether some blocks are not in files yet."""
        return bool(self._new)

    def segments(self) -> tuple[dict[str, Rows], Callable[[], Index]]:
        """Return the blocks to write, and a function that returns their index segment.

        The index segment has checksums, which are computed while the blocks are written. Call the
        function only after that.
        """
        checks: dict[str, list[Tensor]] = {}
        blocks = {}
        for store, name, numbers in self._new:
            shape = len(numbers), store.codec.block_bytes
            pieces = _pieces(store, numbers, checks.setdefault(name, []))
            blocks[name] = Rows(torch.uint8, shape, pieces)

        def index() -> Index:
            tensors: dict[str, Tensor] = {}
            for store, name, numbers in self._new:
                parts = store.index.dump(numbers) | {CHECKS: torch.cat(checks[name])}
                tensors |= {f"{name}.{key}": value for key, value in parts.items()}
            return tensors

        return blocks, index

    def committed(self) -> None:
        """Note in each store that the written blocks are part of the folder."""
        for store, numbering in self._stores.values():
            with store.releasing:
                store.file_numbers[self._memory] = numbering


def _pieces(store: BlockStore, numbers: Tensor, checks: list[Tensor]) -> Callable[[], Any]:
    """Return a function that yields images of blocks (n,) and appends their CRC-32 to `checks`."""

    def pieces() -> Iterator[Tensor]:
        for part in numbers.split(max(1, _AT_ONCE // store.codec.block_bytes)):
            image = store.image(part)
            checks.append(checksums(image))
            yield image

    return pieces


def _facts(store: BlockStore, numbering: FileNumbers) -> StoreFacts:
    shape = store.shape
    return StoreFacts(
        shape.heads,
        shape.tokens,
        shape.key_width,
        shape.value_width,
        str(shape.dtype).removeprefix("torch."),
        store.selection.heads,
        store.rows,
        numbering.count,
        store.codec.block_bytes,
    )


def _slots(store: BlockStore, numbering: FileNumbers) -> State:
    """Return the slot table of a store, with file numbers in place of physical block numbers."""
    state = store.slots.dump()
    units = state.tensors["page_in"]
    of_block = store.units_of_block
    blocks = numbering.of(units.div(of_block, rounding_mode="floor"))
    moved = torch.where(blocks >= 0, blocks * of_block + units % of_block, -1)
    return replace(state, tensors={**state.tensors, "page_in": moved})


class StoreReader:
    """Opens the stores of one layer from mapped segments; see `state.BlockReader`.

    Args:
        memory: id of the saved memory.
        facts: the manifest's entries of all stores, by name.
        blocks: the mapped segments of blocks, by file, oldest first.
        index: the mapped index segments, oldest first; see `index_files`.
        slots: slot tables of all stores, by name.
        device: device on which the layer computes.
    """

    def __init__(
        self,
        memory: str,
        facts: Mapping[str, Any],
        blocks: Mapping[Path, Mapping[str, Tensor]],
        index: Sequence[Index],
        slots: Mapping[str, State],
        device: torch.device,
    ) -> None:
        self._memory = memory
        self._facts = facts
        self._blocks = blocks
        self._index = index
        self._slots = slots
        self._device = device
        self._open: dict[str, BlockStore] = {}

    def open(self, name: str, make: Callable[..., BlockStore]) -> BlockStore:
        """See `state.BlockReader`.

        Raises:
            SavedMemoryError: the files do not match the manifest.
        """
        if name not in self._open:
            facts = StoreFacts(**self._facts[name])
            store = make(facts.shape, facts.query_heads, facts.rows, self._device)
            if store.codec.block_bytes != facts.block_bytes:
                raise SavedMemoryError(
                    f"a block has {facts.block_bytes} bytes in the memory's files, and "
                    f"{store.codec.block_bytes} as this model keeps it"
                )
            self._load(store, name, facts)
            self._open[name] = store
        return self._open[name]

    def _load(self, store: BlockStore, name: str, facts: StoreFacts) -> None:
        files = [(str(path), rows[name]) for path, rows in self._blocks.items() if name in rows]
        for path, rows in files:
            if rows.dtype != torch.uint8 or rows.shape[1:] != (facts.block_bytes,):
                raise SavedMemoryError(f"{path}: its header is damaged")
        checks, summaries = of_store(self._index, name)
        counts = {sum(len(rows) for _, rows in files), len(checks), *lengths(summaries)}
        if counts != {facts.blocks}:
            raise SavedMemoryError(
                f"store {name} has {facts.blocks} blocks in the manifest and {sorted(counts)} in "
                "its files: they do not belong together"
            )
        mapped = MappedBlocks(store.codec.planes, facts.heads, files, checks)
        store.load(mapped, summaries, self._slots[name])
        store.file_numbers[self._memory] = FileNumbers(
            name, torch.arange(facts.blocks), facts.blocks
        )
