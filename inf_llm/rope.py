"""Rotary position embedding, applied here and not by the model, so that a key can get any position.

Keys reach the memory unrotated. A key in the local window is rotated to its own position; a far key
is rotated to the position that `inf_llm.attention.positions` gives it. Angles are computed in
float64: at position 10^7 a float32 product of position and frequency has an error of half a radian.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inf_llm.native import loops

Table = tuple[Tensor, Tensor]
"""Cosines and signed sines, each (L, 2R): a row per position, a column per rotated dimension."""


_TABLES_KEPT = 8
_Asked = tuple[int, int, float, torch.dtype, torch.device]  # the arguments of `Rope.table`
_AskedRows = tuple[tuple[int, ...], torch.dtype, torch.device]


def exact_device(device: torch.device) -> torch.device:
    """The device itself, or the CPU for a device without float64, such as Apple's mps."""
    return device if device.type in ("cpu", "cuda") else torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Rope:
    """The rotation of the queries and keys of one layer.

    Attributes:
        frequencies: (R,) float64, radians per position of each rotated pair, already scaled;
            empty for a layer without rotary positions.
        amplitude: factor on the rotated dimensions (YaRN and longrope have factors other than 1).
        start: first rotated dimension of a head.
        interleaved: a pair is two neighbours (2i, 2i+1) rather than two halves (i, i + R).
        rounds: cosines, sines and products are rounded to the dtype of the rotated tensor, as in
            most models; otherwise they are float32, and the result is rounded once.
    """

    frequencies: Tensor
    amplitude: float = 1.0
    start: int = 0
    interleaved: bool = False
    rounds: bool = False
    _latest: dict[_Asked, Table] = field(default_factory=dict, init=False, repr=False)
    _latest_rows: dict[_AskedRows, Table] = field(default_factory=dict, init=False, repr=False)
    _placed: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_base(cls, head_dim: int, base: float, distance_scale: float = 1.0) -> Rope:
        """Make the original rotation of Su et al. (2021): the whole head, pairs as halves."""
        pairs = torch.arange(head_dim // 2, dtype=torch.float64)
        return cls(distance_scale * base ** (-pairs / (head_dim // 2)))

    @classmethod
    def none(cls) -> Rope:
        """Make a rotation that does nothing, for a layer without positions."""
        return cls(torch.empty(0, dtype=torch.float64))

    def rescaled(self, base: float | None, distance_scale: float) -> Rope:
        """Return the same layout with another base and with positions times `distance_scale`."""
        if base is None and distance_scale == 1.0:
            return self
        frequencies = self.frequencies
        if base is not None and self.pairs:
            pairs = torch.arange(self.pairs, dtype=torch.float64)
            frequencies = frequencies.sign() * base ** (-pairs / self.pairs)
        return dataclasses.replace(self, frequencies=frequencies * distance_scale)

    @property
    def pairs(self) -> int:
        """Number of rotated pairs, R."""
        return self.frequencies.shape[0]

    def table(
        self, first: int, count: int, factor: float, dtype: torch.dtype, device: torch.device
    ) -> Table:
        """Return cosines and signed sines (count, 2R) of positions `first` to `first + count - 1`.

        They are multiplied by `factor` besides the amplitude, and then rounded to `dtype`. A few
        tables are cached, because the layers of a model need the same tables one after another.
        """
        key = (first, count, factor, dtype, device)
        table = self._latest.get(key)
        if table is None:
            exact = exact_device(device)
            positions = torch.arange(first, first + count, dtype=torch.float64, device=exact)
            table = self._compute(positions, factor, dtype, device)
            if len(self._latest) >= _TABLES_KEPT:
                self._latest.clear()
            self._latest[key] = table
        return table

    def _compute(
        self, positions: Tensor, factor: float, dtype: torch.dtype, device: torch.device
    ) -> Table:
        """Compute cosines and signed sines (..., 2R) for float64 positions (...)."""
        exact = exact_device(device)
        if exact not in self._placed:  # cached, because a copy to a GPU makes the host wait
            self._placed[exact] = self.frequencies.to(exact)
        angles = positions[..., None] * self._placed[exact]
        cos, sin = angles.cos() * self.amplitude, angles.sin() * self.amplitude
        pairs = (cos, cos), (-sin, sin)  # a pair (a, b) becomes (a cos - b sin, b cos + a sin)
        if self.interleaved:
            wide = (torch.stack(pair, -1).flatten(-2) for pair in pairs)
        else:
            wide = (torch.cat(pair, -1) for pair in pairs)
        cos, sin = ((half.float() * factor).to(device, dtype) for half in wide)
        return cos, sin

    def rotate(self, x: Tensor, first: int) -> Tensor:
        """Rotate the L tokens of `x` (..., L, D) to positions `first`, `first + 1`, ..."""
        return self._stand(x, first, x.shape[-2])

    def rotate_rows(self, x: Tensor, positions: tuple[int, ...]) -> Tensor:
        """Rotate rows `x` (n, H, 1, D) of one token each, row i to `positions[i]`.

        The latest table is cached, because the layers of a model need the same table one after
        another.
        """
        if not self.pairs:
            return x
        key = positions, self._format(x), x.device
        if key not in self._latest_rows:
            at = torch.tensor(positions, dtype=torch.float64, device=exact_device(x.device))
            self._latest_rows.clear()
            self._latest_rows[key] = self._compute(at[:, None, None], 1.0, *key[1:])
        return self._turn(x, self._latest_rows[key])

    def rotate_at(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate every token of `x` (..., L, D) to a position of its own.

        `positions` are whole numbers (..., L) that broadcast to the tokens of `x`.
        """
        if not self.pairs:
            return x
        exact = positions.to(exact_device(x.device), torch.float64)
        return self._turn(x, self._compute(exact, 1.0, self._format(x), x.device))

    def rotate_both(self, q: Tensor, k: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Rotate queries (B, H, L, D) and keys (B, G, L, D) of the same tokens as `rotate` does.

        On a GPU both are rotated in one call, because the time of a short forward pass depends on
        the number of kernel launches.
        """
        if not self.pairs:
            return q, k
        if q.device.type == "cpu":
            return self.rotate(q, first), self.rotate(k, first)
        both = self.rotate(torch.cat((q, k), 1), first)
        return both[:, : q.shape[1]], both[:, q.shape[1] :]

    def rotate_to(self, x: Tensor, position: int) -> Tensor:
        """Rotate all tokens of `x` (..., L, D) to the same `position`."""
        return self._stand(x, position, 1)

    def rotate_far(self, q: Tensor, distance: int) -> Tensor:
        """Rotate queries (..., L, D) for *unrotated* keys, all of them at the same `distance`.

        A rotated key would include the amplitude too. The keys here are unrotated, so the query is
        multiplied by the amplitude twice.
        """
        return self._stand(q, distance, 1, self.amplitude)

    def _stand(self, x: Tensor, first: int, count: int, factor: float = 1.0) -> Tensor:
        if not self.pairs:
            return x
        return self._turn(x, self.table(first, count, factor, self._format(x), x.device))

    def _format(self, x: Tensor) -> torch.dtype:
        """The dtype of the tables that rotate `x`."""
        return x.dtype if self.rounds else torch.float32

    def reach(self, x: Tensor) -> Tensor:
        """Return an upper bound (..., D) for the absolute values of `x` (..., D) when rotated."""
        if not self.pairs:
            return x.abs()
        shape = (1, 2 * self.pairs)
        one = torch.full(shape, abs(self.amplitude), dtype=self._format(x), device=x.device)
        return self._turn(x.abs(), (one, one))

    def _in_c(self, x: Tensor, table: Table) -> bool:
        """Whether `inf_llm.native` can rotate x: halves, on a CPU in float32."""
        halves = x.dim() == 4 and not self.interleaved and not x.requires_grad
        return halves and loops.takes(x) and loops.takes(table[0])

    def _turn(self, x: Tensor, table: Table) -> Tensor:
        end = self.start + 2 * self.pairs
        if self._in_c(x, table):
            return loops.rotate(x, *table, self.start)
        span = x[..., self.start : end]
        if not self.rounds and span.dtype != torch.float64:
            span = span.float()
        if self.interleaved:
            swapped = span.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        else:
            swapped = span.roll(self.pairs, -1)
        if self.rounds:
            turned = span * table[0] + swapped * table[1]
        else:
            turned = torch.addcmul(span * table[0], swapped, table[1]).to(x.dtype)
        if self.start == 0 and end == x.shape[-1]:
            return turned
        return torch.cat((x[..., : self.start], turned, x[..., end:]), -1)
