"""Rules that stretch rotary positions so that a model reads past the length it was trained on.

`linear` divides every position by the factor (Chen et al., 2023, "PI"). `ntk` raises the base so
that the slowest pair turns as if positions were divided, and the fastest as before (bloc97, 2023).
`yarn` divides the positions of slow pairs only, those that turn less than once in the trained
length, leaves those that turn more than 32 times, and sharpens the softmax (Peng et al., 2023).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from inf_llm.errors import SettingsError
from inf_llm.rope import Rope
from inf_llm.settings import OriginSettings

_FAST, _SLOW = (
    32,
    1,
)  # YaRN: turns in the trained length above and below which a pair counts as such


def rescale(rope: Rope, settings: OriginSettings) -> Rope:
    """A model's rotation with the base and the scaling that the settings ask for.

    Raises:
        SettingsError: YaRN is asked of a model whose rotation is scaled already.
    """
    rope = rope.rescaled(settings.base, settings.distance_scale)
    if settings.scaling == "none" or not rope.pairs:
        return rope
    return _RULES[settings.scaling](rope, settings)


def _linear(rope: Rope, settings: OriginSettings) -> Rope:
    return rope.rescaled(None, 1 / settings.scaling_factor)


def _ntk(rope: Rope, settings: OriginSettings) -> Rope:
    share = torch.arange(rope.pairs, dtype=torch.float64) / max(1, rope.pairs - 1)
    return _with(rope, rope.frequencies * settings.scaling_factor**-share)


def _yarn(rope: Rope, settings: OriginSettings) -> Rope:
    assert settings.trained_len is not None
    factor, base = settings.scaling_factor, _base(rope)
    fast, slow = (
        rope.pairs * math.log(settings.trained_len / (turns * 2 * math.pi)) / math.log(base)
        for turns in (_FAST, _SLOW)
    )
    first, last = max(math.floor(fast), 0), min(math.ceil(slow), 2 * rope.pairs - 1)
    pair = torch.arange(rope.pairs, dtype=torch.float64)
    divided = ((pair - first) / max(last - first, 1e-3)).clamp(0, 1)
    frequencies = rope.frequencies * (1 - divided + divided / factor)
    return _with(rope, frequencies, rope.amplitude * (0.1 * math.log(factor) + 1))


_RULES: dict[str, Callable[[Rope, OriginSettings], Rope]] = {
    "linear": _linear,
    "ntk": _ntk,
    "yarn": _yarn,
}


def _with(rope: Rope, frequencies: Tensor, amplitude: float | None = None) -> Rope:
    amplitude = rope.amplitude if amplitude is None else amplitude
    return dataclasses.replace(rope, frequencies=frequencies, amplitude=amplitude, _latest={})


def _base(rope: Rope) -> float:
    """The base that the frequencies are powers of."""
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
