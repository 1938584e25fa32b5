"""Rules that stretch rotary positions so that a model reads texts beyond its trained length.

`linear` divides every position by the factor (Chen et al., 2023, "PI"). `ntk` raises the base: the
slowest pair rotates as with divided positions, and the fastest pair as before (bloc97, 2023).
`yarn` divides the positions only of slow pairs, which rotate less than once in the trained length,
leaves pairs that rotate more than 32 times unchanged, and sharpens the softmax (Peng et al., 2023).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inf_llm.errors import SettingsError
from inf_llm.rope import Rope
from inf_llm.settings import OriginSettings
from inf_llm.variants import SCALING

# YaRN: a pair with more, or fewer, rotations in the trained length than this is fast, or slow
_FAST, _SLOW = 32, 1


def rescale(rope: Rope, settings: OriginSettings) -> Rope:
    """Return a model's rotation with the base and the scaling of the settings.

    Raises:
        SettingsError: the scaling is YaRN, and the rotation of the model is already scaled.
    """
    rope = rope.rescaled(settings.base, settings.distance_scale)
    if not rope.pairs:
        return rope
    scaled: Rope = settings.scaling.build(SCALING)(rope)
    return scaled


class Unscaled:
    """Unchanged positions."""

    def __call__(self, rope: Rope) -> Rope:
        """Return the same rotation."""
        return rope


@dataclass(frozen=True)
class Linear:
    """Every position divided by the factor."""

    factor: float

    def __call__(self, rope: Rope) -> Rope:
        """Return the stretched rotation."""
        return rope.rescaled(None, 1 / self.factor)


@dataclass(frozen=True)
class Ntk:
    """The slowest pair rotates as with divided positions, the fastest pair as before."""

    factor: float

    def __call__(self, rope: Rope) -> Rope:
        """Return the stretched rotation."""
        share = torch.arange(rope.pairs, dtype=torch.float64) / max(1, rope.pairs - 1)
        return _with(rope, rope.frequencies * self.factor**-share)


@dataclass(frozen=True)
class Yarn:
    """Divided positions for slow pairs only, and a sharper softmax."""

    factor: float
    trained_len: int

    def __call__(self, rope: Rope) -> Rope:
        """Return the stretched rotation."""
        factor, base = self.factor, _base(rope)
        fast, slow = (
            rope.pairs * math.log(self.trained_len / (turns * 2 * math.pi)) / math.log(base)
            for turns in (_FAST, _SLOW)
        )
        first, last = max(math.floor(fast), 0), min(math.ceil(slow), 2 * rope.pairs - 1)
        pair = torch.arange(rope.pairs, dtype=torch.float64)
        divided = ((pair - first) / max(last - first, 1e-3)).clamp(0, 1)
        frequencies = rope.frequencies * (1 - divided + divided / factor)
        return _with(rope, frequencies, rope.amplitude * (0.1 * math.log(factor) + 1))


def _with(rope: Rope, frequencies: Tensor, amplitude: float | None = None) -> Rope:
    amplitude = rope.amplitude if amplitude is None else amplitude
    return dataclasses.replace(rope, frequencies=frequencies, amplitude=amplitude)


def _base(rope: Rope) -> float:
    """Return the base of the frequencies, which are powers of the base.

    Raises:
        SettingsError: the frequencies are scaled already.
    """
    speeds = rope.frequencies.abs()
    if rope.pairs > 1:
        base = float(speeds[1]) ** -rope.pairs
        if torch.allclose(speeds, Rope.from_base(2 * rope.pairs, base).frequencies, rtol=1e-4):
            return base
    raise SettingsError(
        "scaling = 'yarn' needs the plain rotary positions of a model, and this one's are scaled "
        "already: set base too, to start from plain ones, or leave scaling out",
        "scaling",
    )
