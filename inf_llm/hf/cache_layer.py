"""One layer of a cache as transformers knows it, and what it holds: the memory of a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from inf_llm.attention.base import LayerAttention, Rule
from inf_llm.errors import UnsupportedInputError
from inf_llm.hf.rows import RowGroup
from inf_llm.state import BlockReader, State
from inf_llm.unsaved import Unsaved, bare_copy

MakeAttention = Callable[[], LayerAttention]
Makers = dict[int, MakeAttention]
"""Per layer index, what makes its attention object."""

_Method = TypeVar("_Method", bound=Callable[..., Any])


def plainly(method: _Method) -> _Method:
    """Run a method that changes state with ordinary tensors and no gradients.

    Tensors made under `torch.inference_mode` may not be changed outside it.
    """

    @functools.wraps(method)
    def plain(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_inference_mode_enabled() and not torch.is_grad_enabled():
            return method(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            return method(*args, **kwargs)

    return plain  # type: ignore[return-value]


class PassingLayer(CacheLayerMixin):
    """A layer that returns the new keys and values only, and says how many tokens it has seen."""

    is_sliding = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to prepare."""
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The new keys and values, as they are; the attention function has use for them."""
        return key_states, value_states

    def get_mask_sizes(self, query_length: int, *args: Any) -> tuple[int, int]:
        """Length and offset of the 2-D mask that transformers should prepare."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    get_max_cache_shape = get_max_length  # its name before transformers 5.23


class MemoryLayer(Unsaved, PassingLayer):
    """One layer's memory of a batch.

    Args:
        make: makes an empty attention object for this layer.
    """

    is_compileable = False
    is_croppable = True
    supports_early_init = False

    def __init__(self, make: MakeAttention) -> None:
        super().__init__()
        self._make = make
        self._held_dtype: torch.dtype | None = None
        self.rows = RowGroup(make)

    @plainly
    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
        """Feed the layer and get its attention output (B, H, L, Dv); see `RowGroup.attend`."""
        self.is_initialized = True
        self._check_dtype(k.dtype)
        return self.rows.attend(q, k, v, mask, rule)

    def _check_dtype(self, given: torch.dtype) -> None:
        held = self._held_dtype = self._held_dtype or given
        if given != held:
            raise UnsupportedInputError(
                f"this memory holds keys and values in {held}, and {given} ones are fed: feed all "
                "of a text in one dtype, with torch.autocast or without"
            )

    @property
    def held_dtype(self) -> torch.dtype | None:
        """The dtype of what is held; None while that is nothing."""
        return self._held_dtype

    @plainly
    def restore(self, dtype: torch.dtype | None, rows: State, blocks: BlockReader) -> None:
        """What was saved of a layer becomes the state of this one, which is empty."""
        self._held_dtype, self.is_initialized = dtype, dtype is not None
        self.rows.restore(rows, blocks)

    def get_seq_length(self, *args: Any) -> int:
        """Tokens seen, padding included."""
        return self.rows.seen

    def reset(self) -> None:
        """Forget everything."""
        recording = self.record_past
        self.rows = RowGroup(self._make)
        self.record_past = recording
        self.is_initialized, self._held_dtype = False, None

    def offload(self) -> None:
        """Sealed blocks are off the device already."""

    def prefetch(self) -> None:
        """Nothing to bring back."""

    @property
    def record_past(self) -> bool:
        """Whether `crop` can go back; transformers switches it on, and off again."""
        return self.rows.recording

    @record_past.setter
    def record_past(self, wanted: bool) -> None:
        self.rows.record(wanted)

    def activate_past_recording(self) -> None:
        """From now on `crop` must be able to go back."""
        self.record_past = True

    @plainly
    def crop(self, tokens_to_remove: int) -> None:
        """Forget the newest `-tokens_to_remove` tokens.

        A positive number is the length to keep, as transformers had it before 5.23.

        Raises:
            CropError: there are fewer tokens, or the memory cannot go back to where they began.
        """
        if tokens_to_remove > 0:
            self.rows.crop(max(0, self.rows.seen - tokens_to_remove))
        else:
            self.rows.crop(-tokens_to_remove)

    @plainly
    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows become the given ones (beam search)."""
        self.rows.select_rows(beam_idx)

    @plainly
    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the given rows."""
        if indices.dtype == torch.bool:
            indices = indices.nonzero()[:, 0]
        self.rows.select_rows(indices)

    @plainly
    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        rows = torch.arange(self.rows.count).repeat_interleave(repeats)
        self.rows.select_rows(rows)

    @plainly
    def fork(self) -> MemoryLayer:
        """A copy that goes on by itself; sealed blocks are shared."""
        twin = bare_copy(self)
        twin.rows = self.rows.fork()
        return twin
