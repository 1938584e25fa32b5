"""A layer of a transformers cache that holds the memory of a batch."""

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
from inf_llm.not_picklable import NotPicklable, bare_copy
from inf_llm.state import BlockReader, State

AttentionFactory = Callable[[], LayerAttention]
AttentionFactories = dict[int, AttentionFactory]
"""The factory of the attention object, for each layer index."""

_Method = TypeVar("_Method", bound=Callable[..., Any])


def without_inference_mode(method: _Method) -> _Method:
    """Make a method that changes state run with ordinary tensors and without gradients.

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
    """A cache layer that returns only the new keys and values, and reports the tokens seen."""

    is_sliding = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Mark the layer as initialized; there is nothing to allocate."""
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the new keys and values unchanged, for the attention function."""
        return key_states, value_states

    def get_mask_sizes(self, query_length: int, *args: Any) -> tuple[int, int]:
        """Return the length and the offset of the 2-D mask that transformers prepares."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: there is no maximum."""
        return -1

    get_max_cache_shape = get_max_length  # its name before transformers 5.23


class MemoryLayer(NotPicklable, PassingLayer):
    """The memory of one layer, for a batch.

    Args:
        make: makes an empty attention object for this layer.
    """

    is_compileable = False
    is_croppable = True
    supports_early_init = False

    def __init__(self, make: AttentionFactory) -> None:
        super().__init__()
        self._make = make
        self._held_dtype: torch.dtype | None = None
        self.rows = RowGroup(make)

    @without_inference_mode
    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
        """Feed tokens and return their attention output (B, H, L, Dv); see `RowGroup.attend`."""
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
        """Dtype of the keys and values; None while the layer is empty."""
        return self._held_dtype

    @without_inference_mode
    def restore(self, dtype: torch.dtype | None, rows: State, blocks: BlockReader) -> None:
        """Load the saved state of a layer into this one, which is empty."""
        self._held_dtype, self.is_initialized = dtype, dtype is not None
        self.rows.restore(rows, blocks)

    def get_seq_length(self, *args: Any) -> int:
        """Return the number of tokens seen, padding included."""
        return self.rows.seen

    def reset(self) -> None:
        """Drop everything that the layer holds."""
        recording = self.record_past
        self.rows = RowGroup(self._make)
        self.record_past = recording
        self.is_initialized, self._held_dtype = False, None

    def offload(self) -> None:
        """Do nothing: sealed blocks are off the device already."""

    def prefetch(self) -> None:
        """Do nothing: no keys and values have to come back to the device."""

    @property
    def record_past(self) -> bool:
        """Whether `crop` can go back; transformers switches it on and off."""
        return self.rows.recording

    @record_past.setter
    def record_past(self, wanted: bool) -> None:
        self.rows.record(wanted)

    def activate_past_recording(self) -> None:
        """Record the states that `crop` goes back to."""
        self.record_past = True

    @without_inference_mode
    def crop(self, tokens_to_remove: int) -> None:
        """Drop the newest `-tokens_to_remove` tokens.

        A positive number is the length to keep, as in transformers before 5.23.

        Raises:
            CropError: there are fewer tokens, or the memory recorded no state at that point.
        """
        if tokens_to_remove > 0:
            self.rows.crop(max(0, self.rows.seen - tokens_to_remove))
        else:
            self.rows.crop(-tokens_to_remove)

    @without_inference_mode
    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Replace the rows with the given ones (beam search)."""
        self.rows.select_rows(beam_idx)

    @without_inference_mode
    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the given rows."""
        if indices.dtype == torch.bool:
            indices = indices.nonzero()[:, 0]
        self.rows.select_rows(indices)

    @without_inference_mode
    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        rows = torch.arange(self.rows.count).repeat_interleave(repeats)
        self.rows.select_rows(rows)

    @without_inference_mode
    def fork(self) -> MemoryLayer:
        """Return an independent copy that shares the sealed blocks."""
        twin = bare_copy(self)
        twin.rows = self.rows.fork()
        return twin
