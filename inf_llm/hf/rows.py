"""A batch of rows in one layer: together while they are of equal length, else one by one.

Only here is padding known. Left-padded rows have memories of their own, each fed its own tokens.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from inf_llm.attention.base import LayerAttention, Rule
from inf_llm.errors import CropError, UnsupportedInputError
from inf_llm.memory.stats import MemoryStats


class RowGroup:
    """One layer's attention for all rows of a batch.

    Args:
        make: makes an empty attention object.
    """

    def __init__(self, make: Callable[[], LayerAttention]) -> None:
        self._make = make
        self._members: list[LayerAttention] = []  # one for all rows, or one per row
        self._padding: list[int] = []  # left padding of each row that has a member of its own
        self._alone_from: int | None = None
        self._recording = False
        self.count = 0
        self.seen = 0

    @property
    def members(self) -> list[LayerAttention]:
        """The attention objects: one for all rows, or one per row where rows are padded."""
        return self._members

    def row_of(self, member: LayerAttention) -> int:
        """First row that an attention object is for."""
        return next(row for row, other in enumerate(self._members) if other is member)

    def padding_of(self, row: int) -> int:
        """Padding that a row has had so far."""
        return self._padding[row] if self._padding else 0

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
        """Feed tokens to every row.

        Args:
            q: queries (B, H, L, D); k and v likewise with G heads.
            mask: (B, seen + L), 1 for tokens and 0 for padding, or None without padding.
            rule: how the model scores.

        Returns:
            (B, H, L, Dv); zeros where a row has padding.
        """
        rows, length = q.shape[0], q.shape[2]
        padding = None if mask is None else _left_padding(mask, self.seen)
        if not self._members:
            self._begin(rows, padded=padding is not None and max(padding) > 0)
        self._check(rows, padding)
        self._tell_members()
        self.seen += length  # before they are fed: of a feed that breaks off, it is seen
        if self._padding:
            return self._attend_each(q, k, v, padding or [0] * rows, rule)
        return self._members[0].attend(q, k, v, rule)

    def _begin(self, rows: int, padded: bool) -> None:
        self.count = rows
        self._members = [self._make() for _ in range(rows if padded else 1)]
        self._padding = [0] * rows if padded else []
        if self._recording:
            self.record()

    def _check(self, rows: int, padding: list[int] | None) -> None:
        if rows != self.count:
            raise UnsupportedInputError(
                f"a batch of {rows} rows does not fit a memory of {self.count}"
            )
        started = not self._padding and self.seen
        if padding is not None and max(padding) and started:
            raise UnsupportedInputError(
                "padding after the text has begun is not supported: pad on the left"
            )

    def _tell_members(self) -> None:
        for row, member in enumerate(self._members):
            if self._alone_from is None:
                member.alone_from(None)
            else:
                padding = self._padding[row] if self._padding else 0
                member.alone_from(self._alone_from - padding)

    def _attend_each(
        self, q: Tensor, k: Tensor, v: Tensor, padding: list[int], rule: Rule
    ) -> Tensor:
        out = v.new_zeros(q.shape[0], q.shape[1], q.shape[2], v.shape[3])
        for row, (member, pad) in enumerate(zip(self._members, padding, strict=True)):
            if pad and member.seen:
                raise UnsupportedInputError(
                    f"row {row} has padding after its text has begun: pad on the left"
                )
            self._padding[row] += pad
            if self._alone_from is not None:
                member.alone_from(self._alone_from - self._padding[row])
            if pad < q.shape[2]:
                own = (slice(row, row + 1), slice(None), slice(pad, None))
                out[own] = member.attend(q[own], k[own], v[own], rule)
        return out

    def alone_from(self, position: int | None) -> None:
        """From this token on (padding counted), every token is an execution block of its own."""
        self._alone_from = position

    @property
    def recording(self) -> bool:
        """Whether `crop` can go back."""
        return self._recording

    def record(self, wanted: bool = True) -> None:
        """From now on `crop` must be able to go back, or need not."""
        self._recording = wanted
        for member in self._members:
            member.record(wanted)

    def crop(self, count: int) -> None:
        """Forget the newest `count` tokens of every row.

        Raises:
            CropError: there are fewer tokens, or a row cannot go back to where they began.
        """
        if count > self.seen:
            raise CropError(f"cannot forget {count} tokens: only {self.seen} were seen")
        for member in self._members:
            member.crop(count)
        self.seen -= count

    def select(self, rows: Tensor) -> None:
        """Rows become the given ones (a 1-D index; rows may repeat or vanish)."""
        if not self._members:
            return
        self.count = len(rows)
        if not self._padding:
            self._members[0].select_rows(rows)
            return
        wanted = rows.tolist()
        taken: set[int] = set()
        members = []
        for row in wanted:
            members.append(self._members[row].fork() if row in taken else self._members[row])
            taken.add(row)
        self._members = members
        self._padding = [self._padding[row] for row in wanted]

    def fork(self) -> RowGroup:
        """A copy that goes on by itself."""
        twin = RowGroup(self._make)
        twin._members = [member.fork() for member in self._members]
        twin._padding = list(self._padding)
        twin._alone_from, twin._recording = self._alone_from, self._recording
        twin.count, twin.seen = self.count, self.seen
        return twin

    def stats(self) -> MemoryStats:
        """Of all rows together."""
        return MemoryStats.total(member.stats() for member in self._members)


def _left_padding(mask: Tensor, seen: int) -> list[int]:
    """How many of each row's new tokens are padding, all of it before the row's text."""
    if mask.dim() != 2:
        raise UnsupportedInputError(
            f"an attention mask of {mask.dim()} dimensions is not supported: pass a 2-D mask of "
            "ones and zeros (batch, tokens), or none"
        )
    mask = mask.bool()
    if bool((mask[:, :-1] & ~mask[:, 1:]).any()):
        raise UnsupportedInputError(
            "padding after text (right padding, or a hole in the mask) is not supported: "
            "pad on the left (tokenizer.padding_side = 'left')"
        )
    return (~mask[:, seen:]).sum(1).tolist()
