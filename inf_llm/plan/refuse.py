"""Check that a model and a text fit the free memory, before they are loaded and read."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch

from inf_llm.config import DTYPES, RunConfig
from inf_llm.errors import RoomError
from inf_llm.hf.dtype import dtype_name
from inf_llm.hf.outline import Outline, outline
from inf_llm.plan.bytes import make_plan, weight_bytes
from inf_llm.plan.fit import Room, nearest
from inf_llm.plan.free import device_free, host_free
from inf_llm.units import short


def require_room(config: RunConfig, tokens: int = 0, loaded: torch.dtype | None = None) -> None:
    """Check that a model and a text of `tokens` tokens fit; skip the check if that is unknown.

    Args:
        config: the configuration, with the model and its settings.
        tokens: number of tokens of the text and its answer; 0 to check the model alone.
        loaded: format of the weights if they are in memory already; None otherwise.

    Raises:
        RoomError: the model or the text does not fit.
    """
    model = None if config.model.device_map is not None else _outline(config)
    if model is None:
        return
    dtype = dtype_name(loaded or model.dtype)
    if dtype in DTYPES and (loaded or config.model.dtype == "auto"):
        config = replace(config, model=replace(config.model, dtype=dtype))
    apart, free = torch.cuda.is_available(), host_free()
    room = Room(device_free(), free)
    if loaded is not None:
        room = room.with_more(weight_bytes(model, config, loaded, apart), apart)
    lacking = room.lacks(make_plan(model, config, tokens, apart))
    if lacking is not None:
        raise RoomError(_message(model, config, tokens, room, lacking))


@functools.lru_cache(maxsize=1)
def _outline(config: RunConfig) -> Outline | None:
    """Return the outline of a model; None if that fails: loading the model reports the error."""
    try:
        model = outline(config)
        make_plan(model, config, 1, apart=False)
    except Exception:
        return None
    return model


def _message(model: Outline, config: RunConfig, tokens: int, room: Room, lacking: str) -> str:
    what = f"{short(tokens)} tokens do" if tokens else f"{config.model.path} does"
    fitting = [change.words() for change in nearest(model, config, tokens, room)] if tokens else []
    would = f"; what fits: {', or '.join(fitting)}" if fitting else ""
    return f"{what} not fit: {lacking}{would}; --force goes on, inf-llm plan says more"
