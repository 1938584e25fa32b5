"""Read the output of a rotary module of transformers, and make one in the same layout.

Layouts differ between models: cosines and sines doubled in halves, doubled side by side, one column
per pair, or complex numbers. All functions here work on one (cos, sin) column per pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_POSITIONS = (0, 1, 2, 4, 8, 16, 32, 63)


def rotary_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules that compute rotary positions of text, by their class name."""
    return [module for module in model.modules() if _is_rotary(module)]


def rotary_places(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return the parent module of each rotary module, and the name in it."""
    return [
        (parent, name)
        for parent in model.modules()
        for name, module in parent.named_children()
        if _is_rotary(module)
    ]


def _is_rotary(module: nn.Module) -> bool:
    name = type(module).__name__.lower()
    return "rotary" in name and "vision" not in name


def identity_like(output: Any) -> Any:
    """Return no rotation in the layout of `output`: cos 1 and sin 0, or 1 + 0i."""
    if torch.is_tensor(output):
        return torch.ones_like(output)
    return (torch.ones_like(output[0]), torch.zeros_like(output[1]), *output[2:])


def to_pairs(output: Any) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of each rotated pair, (..., R), from any layout."""
    if torch.is_tensor(output):
        return output.real, output.imag
    cos, sin = output[:2]
    pick = _LAYOUTS[_layout(sin)][0]
    return pick(cos), pick(sin)


def like(output: Any, cos: Tensor, sin: Tensor) -> Any:
    """Return cosines and sines (..., R) in the layout and dtype of `output`."""
    if torch.is_tensor(output):
        return torch.complex(cos, sin).to(output.dtype)
    spread = _LAYOUTS[_layout(output[1])][1]
    made = (spread(cos).to(output[0].dtype), spread(sin).to(output[1].dtype))
    return (*made, *output[2:])


def _layout(sin: Tensor) -> str:
    width = sin.shape[-1]
    if width % 2 == 0 and torch.equal(sin[..., : width // 2], sin[..., width // 2 :]):
        return "halves"
    if width % 2 == 0 and torch.equal(sin[..., ::2], sin[..., 1::2]):
        return "neighbours"
    return "single"


_LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "halves": (lambda x: x[..., : x.shape[-1] // 2], lambda x: torch.cat((x, x), -1)),
    "neighbours": (lambda x: x[..., ::2], lambda x: x.repeat_interleave(2, -1)),
    "single": (lambda x: x, lambda x: x),
}


@dataclass(frozen=True)
class RotaryCall:
    """A rotary module and the arguments of a model's call, to repeat the call.

    Attributes:
        module: the rotary module.
        args: positional arguments after hidden states and positions.
        kwargs: keyword arguments other than those two.
        axes: position ids per token (image models: time, height, width); 0 for position ids without
            a dimension for that.
        last: position of the last token of a text; a module may choose among its rules by it.
    """

    module: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    axes: int = 0
    last: int = _POSITIONS[-1]

    @classmethod
    def from_call(
        cls, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> RotaryCall:
        """Return the call that a forward hook saw, without the hidden states and positions."""
        rest = {key: value for key, value in kwargs.items() if key not in ("x", "position_ids")}
        ids = kwargs.get("position_ids", args[1] if len(args) > 1 else None)
        axes = ids.shape[0] if isinstance(ids, Tensor) and ids.dim() == 3 else 0
        return cls(module, tuple(args[2:]), tuple(sorted(rest.items())), axes)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments that differ between calls of one module."""
        return self.args, self.kwargs

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine per pair (n, R) at positions (n,), without running hooks."""
        hidden = torch.empty(1, 1, 1, device=positions.device)
        ids = positions.expand(*([self.axes] if self.axes else []), 1, -1)
        output = self.module.forward(hidden, ids, *self.args, **dict(self.kwargs))
        cos, sin = (x.flatten(0, -3)[0] for x in to_pairs(output))  # all axes are at one position
        return cos, sin

    def frequencies(self, device: torch.device) -> tuple[Tensor, float]:
        """Return radians per position (R,) in float64 on the host, and the amplitude.

        Each larger position refines the estimate, so that a float32 table gives frequencies with an
        error of about 1e-9.
        """
        positions = [position for position in _POSITIONS if position < self.last]
        table = self.at(torch.tensor([*positions, self.last], device=device))
        cos, sin = (x.cpu().double() for x in table)
        angle = torch.atan2(sin, cos)
        estimate = angle[1]
        for row, position in enumerate(positions[2:], start=2):
            turns = torch.round((estimate * position - angle[row]) / (2 * torch.pi))
            estimate = (angle[row] + 2 * torch.pi * turns) / position
        return estimate, float(torch.hypot(cos[0, 0], sin[0, 0]))
