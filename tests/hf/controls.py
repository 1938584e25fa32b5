"""Models that do something else than they say, in ways that a check must notice.

Each control is a context in which `inf_llm.patch` has to refuse. All but two replace the model's
own attention function with the statement below, one thing in it changed; with nothing changed it
must be accepted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch as replaced

import torch
from torch import Tensor, nn

from inf_llm.hf import probe, verify
from inf_llm.hf.decoder import decoder_of
from inf_llm.hf.rotary import RotaryCall

Control = Callable[[Any], contextlib.AbstractContextManager[None]]


def stated_attention(
    module: nn.Module,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    scale_by: float = 1.0,
    cap_by: float = 1.0,
    cap_where_none: float | None = None,
    sink_by: float = 0.0,
    sink_where_none: bool = False,
    reach: int | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """Softmax attention of a model, as one matrix; `*_by` and the like make it another's."""
    shared = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(shared, 1).float() for x in (k, v))
    scale = (q.shape[-1] ** -0.5 if scaling is None else scaling) * scale_by
    scores = q.float() @ k.transpose(2, 3) * scale
    cap = cap_where_none if softcap is None else softcap * cap_by
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    scores = scores + mask.float()
    if reach is not None:
        query = torch.arange(k.shape[2] - q.shape[2], k.shape[2])[:, None]
        scores = scores.masked_fill(query - torch.arange(k.shape[2]) >= reach, -math.inf)
    if s_aux is None and sink_where_none:
        s_aux = torch.zeros(q.shape[1])
    if s_aux is not None:
        sink = (s_aux.float() + sink_by).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat((scores, sink), -1)
    weights = scores.softmax(-1)[..., : k.shape[2]]
    return (weights @ v).transpose(1, 2), None


def _attends(**wrong: Any) -> Control:
    """The model attends by the statement, changed by `wrong`."""

    @contextlib.contextmanager
    def control(model: Any) -> Iterator[None]:
        def own(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
            return stated_attention(*args, **kwargs, **wrong)

        with replaced.object(verify, "_own_attention", lambda *_: own):
            yield

    return control


@contextlib.contextmanager
def _window(model: Any) -> Iterator[None]:
    """A layer sees one token less than its own window; where it has none, less than all."""
    own = getattr(decoder_of(model).config, "sliding_window", None)
    with _attends(reach=own - 1 if own else 200)(model):
        yield


@contextlib.contextmanager
def _frequency(model: Any) -> Iterator[None]:
    """Frequencies are measured one percent too high."""
    measured = RotaryCall.frequencies

    def higher(self: RotaryCall, device: Any) -> tuple[Tensor, float]:
        frequencies, amplitude = measured(self, device)
        return frequencies * 1.01, amplitude

    with replaced.object(RotaryCall, "frequencies", higher):
        yield


@contextlib.contextmanager
def _halves(model: Any) -> Iterator[None]:
    """The two halves of a pair change places."""
    candidates = probe._Search._candidates

    def turned(self: Any, *args: Any) -> Iterator[Any]:
        for rope in candidates(self, *args):
            if rope.interleaved:
                yield rope
                yield dataclasses.replace(rope, frequencies=rope.frequencies.flip(0))

    with replaced.object(probe._Search, "_candidates", turned):
        yield


@contextlib.contextmanager
def _norm_after_rotation(model: Any) -> Iterator[None]:
    """Keys are normed with weights once they are rotated."""
    file = sys.modules[type(decoder_of(model)).__module__]
    rotate = file.apply_rotary_pos_emb

    def rotate_and_norm(q: Tensor, k: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        q, k = rotate(q, k, *args, **kwargs)
        weights = torch.linspace(0.8, 1.2, k.shape[-1])
        return q, (k * weights.to(k)).to(k.dtype)

    with replaced.object(file, "apply_rotary_pos_emb", rotate_and_norm):
        yield


RIGHT = _attends()
WRONG: dict[str, Control] = {
    "frequency": _frequency,
    "halves": _halves,
    "norm-after-rotation": _norm_after_rotation,
    "scale": _attends(scale_by=1.02),
    "window": _window,
    "cap": _attends(cap_by=1.1, cap_where_none=50.0),
    "sink": _attends(sink_by=0.3, sink_where_none=True),
}
