"""The rows of a batch in one layer: one attention object for all, or one per row under padding.

Only this module handles padding. Left-padded rows have separate memories, and each is fed only its
own tokens.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from inf_llm.attention.base import LayerAttention, Rule
from inf_llm.errors import CropError, UnsupportedInputError
from inf_llm.memory.stats import MemoryStats
from inf_llm.state import BlockReader, State, Stateful


class RowGroup(Stateful):
    """The attention of one layer for all rows of a batch.

    Args:
        make: makes an empty attention object.
    """

    numbers = ("members", "_padding", "count", "seen")
    parts = ("members",)

    def __init__(self, make: Callable[[], LayerAttention]) -> None:
        self._make = make
        self.members: tuple[LayerAttention, ...] = ()  # one for all rows, or one per padded row
        self._padding: tuple[int, ...] = ()  # left padding of rows that have their own member
        self._decode_from: int | None = None
        self._recording = False
        self.count = 0
        self.seen = 0

    def row_of(self, member: LayerAttention) -> int:
        """Return the first row that an attention object computes."""
        return next(row for row, other in enumerate(self.members) if other is member)

    def padding_of(self, row: int) -> int:
        """Return the number of padding tokens that a row has had so far."""
        return self._padding[row] if self._padding else 0

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
        """Feed tokens to every row.

        Args:
            q: queries (B, H, L, D); k and v have G heads.
            mask: (B, seen + L), 1 for tokens and 0 for padding, or None without padding.
            rule: the model's scoring rule.

        Returns:
            (B, H, L, Dv); zeros where a row has padding.

        Raises:
            UnsupportedInputError: padding is not on the left, or the number of rows changes.
        """
        rows, length = q.shape[0], q.shape[2]
        padding = [0] * rows if mask is None else _left_padding(mask, self.seen)
        if not self.members:
            self._begin(rows, padded=any(padding))
        self._check(rows, padding)
        if self._padding:
            self._padding = tuple(map(sum, zip(self._padding, padding, strict=True)))
        for row, member in enumerate(self.members):
            alone = self._decode_from
            member.decode_from(None if alone is None else alone - self.padding_of(row))
        self.seen += length  # counted before the pass, so that one that fails is detected
        if self._padding:
            return self._attend_each(q, k, v, padding, rule)
        return self.members[0].attend(q, k, v, rule)

    def _begin(self, rows: int, padded: bool) -> None:
        self.count = rows
        self.members = tuple(self._make() for _ in range(rows if padded else 1))
        self._padding = (0,) * rows if padded else ()
        if self._recording:
            self.record()

    def _check(self, rows: int, padding: list[int]) -> None:
        if rows != self.count:
            raise UnsupportedInputError(
                f"a batch of {rows} rows does not fit a memory of {self.count}"
            )
        for row, pad in enumerate(padding):
            if pad and self.members[row if self._padding else 0].seen:
                raise UnsupportedInputError(
                    f"row {row} has padding after its text has begun: pad on the left"
                )

    def _attend_each(
        self, q: Tensor, k: Tensor, v: Tensor, padding: list[int], rule: Rule
    ) -> Tensor:
        out = v.new_zeros(q.shape[0], q.shape[1], q.shape[2], v.shape[3])
        for row, (member, pad) in enumerate(zip(self.members, padding, strict=True)):
            if pad < q.shape[2]:
                part = (slice(row, row + 1), slice(None), slice(pad, None))
                out[part] = member.attend(q[part], k[part], v[part], rule)
        return out

    def decode_from(self, position: int | None) -> None:
        """Make each token from this position on (padding counted) an execution block of its own."""
        self._decode_from = position

    @property
    def recording(self) -> bool:
        """Whether `crop` can go back."""
        return self._recording

    def record(self, wanted: bool = True) -> None:
        """Start or stop recording the states that `crop` goes back to."""
        self._recording = wanted
        for member in self.members:
            member.record(wanted)

    def crop(self, count: int) -> None:
        """Drop the newest `count` tokens of every row.

        Raises:
            CropError: there are fewer tokens, or a row recorded no state at that point.
        """
        if count > self.seen:
            raise CropError(f"cannot forget {count} tokens: only {self.seen} were seen")
        for member in self.members:
            member.crop(count)
        self.seen -= count

    def select_rows(self, rows: Tensor) -> None:
        """See `Stateful.select_rows`; a padded row is a separate part, and moves as a whole."""
        if not self._padding:
            super().select_rows(rows)
        else:
            wanted = rows.tolist()
            self.members = tuple(
                self.members[row].fork() if row in wanted[:at] else self.members[row]
                for at, row in enumerate(wanted)
            )
            self._padding = tuple(self._padding[row] for row in wanted)
        self.count = len(rows)

    def restore(self, state: State, blocks: BlockReader) -> None:
        """See `Stateful.restore`."""
        self.members = tuple(self._make() for _ in state.parts)
        super().restore(state, blocks)

    def stats(self) -> MemoryStats:
        """Return the statistics of all rows together."""
        return MemoryStats.total(member.stats() for member in self.members)


def _left_padding(mask: Tensor, seen: int) -> list[int]:
    """Return the padding among each row's new tokens, after a check that no text precedes it."""
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
