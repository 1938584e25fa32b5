"""Int8 weights on a CPU for forward passes with a single token per row, as in decoding.

Such a pass takes as long as reading all weights once from memory, and int8 has a quarter of
float32's bytes. Prefill uses the weights as they are, which is faster for many tokens, so both
copies are kept: 1 byte a weight more. Each output channel has a scale of its own. In C (see
`inf_llm.native`), inputs are float32. Without it, and for models in half precision, they are
rounded to bfloat16, because torch's kernel for that combination needs AVX2 alone.

Only single tokens are affected, so a text gives the same result whether it is read in one chunk or
in several. With more than `MAX_ROWS` rows, the weights are used as they are.

Only the `forward` of each linear layer is replaced, on the layer itself: its weights, names and
`state_dict` stay as they were.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inf_llm.errors import SettingsError
from inf_llm.native import loops

MAX_ROWS = 16
"""Largest number of rows, with a single token each, for which int8 is faster."""
_MIN_WEIGHTS = 1 << 14
"""Weights of the smallest layer that is rounded; for smaller ones it is not worth it."""
_AT_ONCE = 4096
"""Output channels that are rounded at once, so that no float32 copy of all weights is made."""


class SingleTokens:
    """The `forward` of a linear layer, with an int8 copy of its weights.

    Args:
        layer: the linear layer, with weights (n, m) on a CPU.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._round()

    def _round(self) -> None:
        weight = self._layer.weight.detach()
        self._of = weight.data_ptr(), self._layer.weight._version
        # the scale is exact in bfloat16, and not below what the largest weight needs
        scale = (weight.abs().amax(1).float() * (1.004 / 127)).bfloat16()  # (n,)
        scale.masked_fill_(scale == 0, 1.0)
        rounded = torch.empty(weight.shape, dtype=torch.int8)
        for first in range(0, len(weight), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            rounded[part] = (weight[part].float() / scale[part, None].float()).round_()
        self._weight, self._scale = rounded, scale.float()

    def __call__(self, x: Tensor) -> Tensor:
        """Map tokens (B, L, m) to (B, L, n); see `nn.Linear.forward`."""
        layer, weight = self._layer, self._layer.weight
        alone = x.dim() > 1 and x.shape[-2] == 1 and x.numel() <= MAX_ROWS * x.shape[-1]
        if not alone or torch.is_grad_enabled() or weight.device.type != "cpu":
            return nn.Linear.forward(layer, x)
        if self._of != (weight.data_ptr(), weight._version):
            self._round()  # the weights changed, or the layer was copied
        bias = layer.bias
        product = self._product(x)
        return product if bias is None else product + bias

    def _product(self, x: Tensor) -> Tensor:
        """Multiply vectors (..., m) with the int8 weights."""
        if loops.takes(x):
            return loops.int8_product(x, self._weight, self._scale)
        rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
        product = torch._weight_int8pack_mm(rows, self._weight, self._scale.to(torch.bfloat16))
        return product.to(x.dtype).view(*x.shape[:-1], -1)

    @property
    def bytes(self) -> int:
        """Bytes of the int8 copy and its scales."""
        return self._weight.numel() + self._scale.nbytes


def round_weights(model: nn.Module) -> None:
    """Make passes with a single token use int8 weights, until `restore_weights`.

    Raises:
        SettingsError: the model has no linear layers on a CPU that are large enough.
    """
    layers = [module for module in model.modules() if _fits(module)]
    if not layers:
        raise SettingsError(
            f"weights = 'int8' is for linear layers on a CPU, and this {type(model).__name__} has "
            "none: leave it out",
            "weights",
        )
    for layer in layers:
        layer.forward = SingleTokens(layer)  # type: ignore[arg-type]


def restore_weights(model: nn.Module) -> None:
    """Undo `round_weights`, if it was called."""
    for module in model.modules():
        if isinstance(vars(module).get("forward"), SingleTokens):
            del module.forward


def rounded_bytes(model: nn.Module) -> int:
    """Return the bytes of all int8 copies and their scales."""
    forwards = (vars(module).get("forward") for module in model.modules())
    return sum(each.bytes for each in forwards if isinstance(each, SingleTokens))


def _fits(module: nn.Module) -> bool:
    """Return whether a module is a large linear layer on a CPU with its class's own `forward`."""
    if type(module) is not nn.Linear or "forward" in vars(module):
        return False
    weight = module.weight
    on_cpu = weight.device.type == "cpu" and weight.is_floating_point()
    return on_cpu and weight.numel() >= _MIN_WEIGHTS
