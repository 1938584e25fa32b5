"""CUDA graphs on a CPU: operations are recorded once, and repeated with the very same tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inf_llm.memory import store

_ATEN = torch.ops.aten
_INDEX = _ATEN.index.Tensor
_WAITING = (_ATEN.nonzero.default, _ATEN.masked_select.default, _ATEN.unique_dim.default)


def _by_truth(indices: Any) -> bool:
    return any(index is not None and index.dtype == torch.bool for index in indices)


class Recording(TorchDispatchMode):
    """What a program did. Like a graph it knows tensors and numbers, and nothing of Python."""

    def __init__(self) -> None:
        super().__init__()
        self._done: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        alone = [leaf for leaf in tree_leaves(result) if not torch.is_tensor(leaf)]
        assert not alone, f"{function} brings a number to the host"
        waits = function in _WAITING or (function is _INDEX and _by_truth(args[1]))
        assert not waits, f"{function} makes the host wait for how many there are"
        self._done.append((function, args, kwargs or {}, result))
        return result

    def repeat(self) -> None:
        """Everything once more; results go where they went the first time."""
        for function, args, kwargs, result in self._done:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if old.data_ptr() != new.data_ptr():  # neither a view nor changed in place
                    old.copy_(new)


class Recorder:
    """Stands for `torch.cuda.CUDAGraph`; counts what it was asked to do."""

    def __init__(self) -> None:
        self.recorded = 0
        self.repeated = 0

    def __call__(self, program: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        recording: Recording | None = None

        def repeat() -> None:
            nonlocal recording
            self.repeated += 1
            if recording is None:  # a graph does not run while it is recorded; this does
                recording = Recording()
                with recording:
                    program()
            else:
                recording.repeat()

        return repeat


def _load_pages(
    slab: Tensor, per_slab: int, target: Tensor, pages: Tensor, places: Tensor, missing: Tensor
) -> None:
    """`inf_llm.memory.load.load_pages` in torch, from one slab instead of addresses."""
    own = torch.where(missing[:, None], slab.index_select(0, pages), target.index_select(0, places))
    target.index_copy_(0, places, own)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Decode steps are recorded here, and slots filled without the host."""
    made = Recorder()
    monkeypatch.setattr("inf_llm.attention.inf_llm.recorder", lambda device: made)
    monkeypatch.setattr(store, "can_load", lambda *args: True)
    monkeypatch.setattr(store, "load_pages", _load_pages)
    monkeypatch.setattr(store.Home, "addresses", lambda home, device: home._slabs[0])
    return made
