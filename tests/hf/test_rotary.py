"""Rotary modules of every layout: read as one cosine and sine a pair, and made again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inf_llm.hf.rotary import (
    RotaryCall,
    identity_like,
    like,
    rotary_modules,
    rotary_places,
    to_pairs,
)

FREQUENCIES = torch.tensor([1.0, 0.1, 0.003, 1e-5], dtype=torch.float64)
LAYOUTS: dict[str, Callable[[Tensor], Any]] = {
    "halves": lambda angle: tuple(torch.cat((f, f), -1) for f in (angle.cos(), angle.sin())),
    "neighbours": lambda angle: tuple(
        torch.stack((f, f), -1).flatten(-2) for f in (angle.cos(), angle.sin())
    ),
    "single": lambda angle: (angle.cos(), angle.sin()),
    "complex": lambda angle: torch.polar(torch.ones_like(angle), angle),
}


class _TinyRotaryEmbedding(nn.Module):
    def __init__(self, layout: str, amplitude: float = 1.0) -> None:
        super().__init__()
        self.layout, self.amplitude = layout, amplitude

    def forward(self, hidden: Tensor, positions: Tensor) -> Any:
        angle = (positions[..., None].double() * FREQUENCIES).float()
        made = LAYOUTS[self.layout](angle)
        if torch.is_tensor(made):
            return self.amplitude * made
        return tuple(self.amplitude * part for part in made)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_read_and_made_again(layout: str) -> None:
    angle = torch.arange(7.0)[None, :, None] * FREQUENCIES.float()
    given = LAYOUTS[layout](angle)
    cos, sin = to_pairs(given)
    torch.testing.assert_close((cos, sin), (angle.cos(), angle.sin()))
    torch.testing.assert_close(like(given, cos, sin), given)
    torch.testing.assert_close(identity_like(given), LAYOUTS[layout](torch.zeros_like(angle)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("last", [63, 4095])
def test_frequencies_are_those_of_the_module(layout: str, last: int) -> None:
    call = RotaryCall(_TinyRotaryEmbedding(layout, 1.5), last=last)
    found, amplitude = call.frequencies(torch.device("cpu"))
    torch.testing.assert_close(found, FREQUENCIES, atol=2e-7 * 63 / last, rtol=1e-6)
    assert amplitude == pytest.approx(1.5)


def test_rotary_modules_are_found_by_name_and_those_of_images_are_left() -> None:
    class VisionRotaryEmbedding(nn.Module):
        pass

    model = nn.ModuleDict(
        {"rotary": _TinyRotaryEmbedding("halves"), "eye": VisionRotaryEmbedding()}
    )
    assert rotary_modules(model) == [model["rotary"]]
    assert rotary_places(model) == [(model, "rotary")]
