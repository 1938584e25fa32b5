"""LM-Infinite's attention as a separate module, for models outside the transformers library.

    attention = LMInfinite(d_model=512, n_global=100, l_pretrain=2048, num_heads=8)
    o = attention(q, k, v)                            # (batch, length, d_model), any length

A query attends to the latest `l_pretrain` tokens, itself included, at their true distances, and to
the first `n_global` tokens at distance `l_pretrain - 1` (Han et al., 2023). The module has no
weights and is differentiable, and time and memory grow linearly with the length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inf_llm.errors import SettingsError, UnsupportedInputError
from inf_llm.rope import Rope

_BLOCK = 256  # queries computed at once; affects only the speed


@dataclass(frozen=True)
class LambdaState:
    """The keys and values of earlier tokens that later tokens attend to.

    Attributes:
        seen: tokens fed so far.
        near_k: keys of the window (B, H, n, D), rotated, n at most `l_pretrain - 1`.
        near_v: their values (B, H, n, D).
        global_k: keys of the first tokens (B, H, m, D), not rotated, m at most `n_global`.
        global_v: their values (B, H, m, D).
    """

    seen: int
    near_k: Tensor
    near_v: Tensor
    global_k: Tensor
    global_v: Tensor

    def detach(self) -> LambdaState:
        """Return the state without its autograd graph, so that gradients stop here."""
        tensors = (self.near_k, self.near_v, self.global_k, self.global_v)
        return LambdaState(self.seen, *(tensor.detach() for tensor in tensors))


class LMInfinite(nn.Module):
    """Lambda-shaped causal attention; see the module docstring.

    Args:
        d_model: width of queries, keys and values.
        n_global: number of first tokens that every later token attends to.
        l_pretrain: length of the local window, equal to the trained length of the positions.
        num_heads: number of heads; the width is split into heads.
        rotary: rotate queries and keys (RoPE); if false, there are no positions.
        base: RoPE base.

    Raises:
        SettingsError: a size is out of range, or the width cannot be split into the heads.
    """

    def __init__(
        self,
        d_model: int,
        n_global: int = 100,
        l_pretrain: int = 2048,
        num_heads: int = 1,
        rotary: bool = True,
        base: float = 10000.0,
    ) -> None:
        super().__init__()
        least = {"d_model": 1, "n_global": 0, "l_pretrain": 1, "num_heads": 1}
        given = (d_model, n_global, l_pretrain, num_heads)
        for (name, low), value in zip(least.items(), given, strict=True):
            if value < low:
                raise SettingsError(
                    f"{name} = {value} is too small: at least {low} is needed", name
                )
        if d_model % (num_heads * (2 if rotary else 1)):
            what = "heads of even size (rotary = True)" if rotary else "heads"
            raise SettingsError(
                f"d_model = {d_model} cannot be split into num_heads = {num_heads} {what}: "
                f"a multiple of {num_heads * (2 if rotary else 1)} is needed",
                "d_model",
            )
        self.d_model, self.num_heads = d_model, num_heads
        self.n_global, self.l_pretrain = n_global, l_pretrain
        self.rope = Rope.from_base(d_model // num_heads, base) if rotary else Rope.none()

    def extra_repr(self) -> str:
        """The sizes, for `print(module)`."""
        return (
            f"d_model={self.d_model}, n_global={self.n_global}, l_pretrain={self.l_pretrain}, "
            f"num_heads={self.num_heads}, rotary={bool(self.rope.pairs)}"
        )

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the attention output (B, L, d_model) of a whole text from three such tensors."""
        return self.feed(q, k, v)[0]

    def feed(
        self, q: Tensor, k: Tensor, v: Tensor, state: LambdaState | None = None
    ) -> tuple[Tensor, LambdaState]:
        """Feed the next tokens of a text; pieces of any lengths give the same output as `forward`.

        Args:
            q: queries (B, L, d_model); k and v have the same shape.
            k: keys.
            v: values.
            state: the state that the previous call returned; None for the start of a text.

        Returns:
            The output (B, L, d_model), and the state after these tokens.

        Raises:
            UnsupportedInputError: the shapes do not match each other, the module or the state.
        """
        self._check(q, k, v, state)
        heads = [x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v)]
        state = self._begin(heads[1]) if state is None else state
        outputs = [q.new_empty(q.shape[0], self.num_heads, 0, heads[2].shape[3])]
        for q, k, v in zip(*(x.split(_BLOCK, 2) for x in heads), strict=True):
            output, state = self._block(q, k, v, state)
            outputs.append(output)
        return torch.cat(outputs, 2).transpose(1, 2).flatten(2), state

    def _check(self, q: Tensor, k: Tensor, v: Tensor, state: LambdaState | None) -> None:
        shapes = [tuple(x.shape) for x in (q, k, v)]
        if q.dim() != 3 or q.shape[2] != self.d_model or len(set(shapes)) > 1:
            shown = ", ".join(f"{name} {shape}" for name, shape in zip("qkv", shapes, strict=True))
            raise UnsupportedInputError(
                f"{shown}: three tensors (batch, length, {self.d_model}) of one shape are needed"
            )
        if state is not None and state.near_k.shape[0] != q.shape[0]:
            raise UnsupportedInputError(
                f"a batch of {q.shape[0]} rows does not fit a state of {state.near_k.shape[0]}"
            )

    def _begin(self, k: Tensor) -> LambdaState:
        nothing = k[:, :, :0]
        return LambdaState(0, nothing, nothing, nothing, nothing)

    def _block(
        self, q: Tensor, k: Tensor, v: Tensor, state: LambdaState
    ) -> tuple[Tensor, LambdaState]:
        """Compute up to `_BLOCK` queries (B, H, Q, D): one softmax over window and globals."""
        Q, seen = q.shape[2], state.seen
        near_k = torch.cat((state.near_k, self.rope.rotate(k, seen)), 2)
        near_v = torch.cat((state.near_v, v), 2)
        room = self.n_global - state.global_k.shape[2]
        global_k = torch.cat((state.global_k, k[:, :, :room]), 2)
        global_v = torch.cat((state.global_v, v[:, :, :room]), 2)
        scores = torch.cat(
            (
                self.rope.rotate_far(q, self.l_pretrain - 1) @ global_k.transpose(-1, -2),
                self.rope.rotate(q, seen) @ near_k.transpose(-1, -2),
            ),
            -1,
        )
        visible = self._visible(seen, Q, global_k.shape[2], near_k.shape[2], q.device)
        weights = (scores * q.shape[3] ** -0.5).masked_fill(~visible, -torch.inf).softmax(-1)
        keep = min(near_k.shape[2], self.l_pretrain - 1)
        first = near_k.shape[2] - keep
        after = LambdaState(
            seen + Q, near_k[:, :, first:], near_v[:, :, first:], global_k, global_v
        )
        return weights @ torch.cat((global_v, near_v), 2), after

    def _visible(
        self, seen: int, queries: int, globals_: int, near: int, device: torch.device
    ) -> Tensor:
        """Return the attention mask (queries, globals + near): global tokens before a query's
        window, and tokens in the window, up to the query's own token."""
        at = torch.arange(seen, seen + queries, device=device)[:, None]
        old = at - torch.arange(globals_, device=device) >= self.l_pretrain
        distance = at - torch.arange(seen + queries - near, seen + queries, device=device)
        return torch.cat((old, (distance >= 0) & (distance < self.l_pretrain)), 1)
