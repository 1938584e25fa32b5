"""Pages in a file on a disk, with the most recently read pages in a bounded part of host memory.

The file has no name once it is open, so the system removes it when the process ends for any reason.
The tier reads and writes by system calls, which report a failure as an error. The file is not
mapped, because a failing disk would end a process that reads a mapped file.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from inf_llm.errors import SavedMemoryError
from inf_llm.memory.codec import Plane, Planes
from inf_llm.memory.page_rows import common_view, from_rows, row_bytes, to_rows
from inf_llm.memory.tiers import Tier
from inf_llm.units import parse_bytes

_GROWTH = 64  # pages by which a tier enlarges its part of host memory


class Budget:
    """Limit on the bytes of host memory that all tiers of one folder use together."""

    _all: ClassVar[weakref.WeakValueDictionary[tuple[str, int], Budget]] = (
        weakref.WeakValueDictionary()
    )
    _lock = threading.Lock()

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @classmethod
    def of(cls, folder: str, limit: int) -> Budget:
        """Return the budget of a folder and a limit, shared by all tiers that exist at once."""
        with cls._lock:
            budget = cls._all.get((folder, limit))
            if budget is None:
                budget = cls._all[folder, limit] = cls(limit)
            return budget

    def take(self, count: int) -> bool:
        """Take `count` bytes if they fit into the limit; return whether they were taken."""
        with self._lock:
            fits = self.used + count <= self.limit
            self.used += count if fits else 0
            return fits

    def give(self, counts: list[int]) -> None:
        """Return bytes to the budget that `take` has granted."""
        with self._lock:
            self.used -= sum(counts)


class DiskTier(Tier):
    """Tier in a file with a cache in host memory; see the module's docstring.

    Args:
        planes: formats of the planes of a page.
        path: folder for the file.
        host_bytes: most host memory that all tiers of that folder use together, as "4GiB".

    Raises:
        SavedMemoryError: no file can be created in that folder.
    """

    def __init__(self, planes: Sequence[Plane], path: str, host_bytes: str) -> None:
        super().__init__(planes)
        self._page = row_bytes(planes)
        self._folder = Path(path)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file: Any = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._failure("cannot be written", error) from error
        self._budget = Budget.of(str(self._folder.resolve()), parse_bytes("host_bytes", host_bytes))
        self._taken: list[int] = []
        weakref.finalize(self, self._budget.give, self._taken).atexit = False
        self._held: list[Tensor] = []  # slabs of `_GROWTH` rows
        self._row_of: OrderedDict[int, int] = OrderedDict()  # by page, oldest first
        self._free: list[int] = []  # rows without a page
        self._lock = threading.Lock()

    def _failure(self, what: str, error: OSError) -> SavedMemoryError:
        return SavedMemoryError(f"tier disk: {self._folder} {what} ({error.strerror or error})")

    def make_room(self, pages: int) -> None:
        """See `Tier.make_room`; does nothing, because the file grows when it is written."""

    def write(self, pages: Tensor, planes: Planes) -> None:
        """See `Tier.write`.

        Raises:
            SavedMemoryError: the disk is full, or fails.
        """
        rows = to_rows(tuple(plane.cpu() for plane in planes))
        with self._lock:
            for page in pages.tolist():
                self._drop(page)  # a copy in memory belongs to a released block with that number
            try:
                for first, page, count in _runs(pages.tolist()):
                    self._write_at(page * self._page, rows[first : first + count])
            except OSError as error:
                raise self._failure("cannot be written", error) from error

    def _write_at(self, offset: int, rows: Tensor) -> None:
        left = rows.numpy().reshape(-1).data
        self._file.seek(offset)
        while left:
            left = left[self._file.write(left) :]

    def read(self, pages: Tensor) -> Planes:
        """See `Tier.read`.

        Raises:
            SavedMemoryError: the disk fails.
        """
        wanted = pages.tolist()
        target = torch.empty(len(wanted), self._page, dtype=torch.uint8)
        with self._lock:
            missing = self._copy_held(wanted, target)
            by_page = sorted(missing, key=wanted.__getitem__)
            self._read_missing([wanted[at] for at in by_page], by_page, target)
        return from_rows(common_view(target, self._planes), self._planes)

    def in_memory(self, pages: int) -> int:
        """See `Tier.in_memory`."""
        return min(pages, len(self._held) * _GROWTH)

    def _copy_held(self, wanted: list[int], target: Tensor) -> list[int]:
        """Copy pages in host memory to `target`; return the places in `wanted` of all others."""
        there = [(at, page) for at, page in enumerate(wanted) if page in self._row_of]
        for at, page in there:
            self._row_of.move_to_end(page)
            target[at] = self._row(self._row_of[page])
        known = {at for at, _ in there}
        return [at for at in range(len(wanted)) if at not in known]

    def _read_missing(self, pages: list[int], places: list[int], target: Tensor) -> None:
        """Read ascending pages from the file into rows `places` of `target`, and cache them."""
        at = torch.tensor(places)
        for first, page, count in _runs(pages):
            rows = self._read_at(page * self._page, count)
            target[at[first : first + count]] = rows
            for ahead in range(count):
                self._keep(page + ahead, rows[ahead])

    def _read_at(self, offset: int, count: int) -> Tensor:
        rows = torch.empty(count, self._page, dtype=torch.uint8)
        left = rows.numpy().reshape(-1).data
        try:
            self._file.seek(offset)
            while left:
                count = self._file.readinto(left)
                if not count:
                    raise OSError(0, "the file ends too early")
                left = left[count:]
        except OSError as error:
            raise self._failure("cannot be read", error) from error
        return rows

    def _keep(self, page: int, row: Tensor) -> None:
        """Cache a page in host memory; without free room, evict the least recently read page."""
        if page in self._row_of:
            return
        if not self._free:
            self._grow()
        if not self._free and self._row_of:
            self._drop(next(iter(self._row_of)))
        if self._free:
            self._row_of[page] = place = self._free.pop()
            self._row(place).copy_(row)

    def _drop(self, page: int) -> None:
        place = self._row_of.pop(page, None)
        if place is not None:
            self._free.append(place)

    def _grow(self) -> None:
        """Enlarge the cache in host memory by `_GROWTH` pages, if the budget allows it."""
        size = _GROWTH * self._page
        if self._budget.take(size):
            self._taken.append(size)
            first = len(self._held) * _GROWTH
            self._held.append(torch.empty(_GROWTH, self._page, dtype=torch.uint8))
            self._free += range(first, first + _GROWTH)

    def _row(self, place: int) -> Tensor:
        slab, row = divmod(place, _GROWTH)
        return self._held[slab][row]


def _runs(pages: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield each run of consecutive pages in an ascending list: index, first page, length."""
    first = 0
    for at in range(1, len(pages) + 1):
        if at == len(pages) or pages[at] != pages[at - 1] + 1:
            yield first, pages[first], at - first
            first = at
