"""What `Recent` holds, in buffers of fixed place and size, for steps that are repeated as recorded.

A window of tokens goes round in a ring, in no order that matters: its keys have been rotated. The
token that it loses waits in a queue, until as many wait as a block takes. How far both have come is
known on the device alone, so a recorded step finds its places without being told.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inf_llm.memory.recent import Recent


class Ring:
    """Streams of tokens, as in `Recent`.

    Args:
        recent: whose streams they are.
        keep: tokens in the window.
        room: tokens that may wait.
    """

    def __init__(self, recent: Recent, keep: int, room: int) -> None:
        self._keep = keep
        self._window: dict[str, Tensor] = {}
        self._queue: dict[str, Tensor] = {}
        for name in recent.streams:
            like = recent[name]
            before, after = like.shape[:2], like.shape[3:]
            self._window[name] = like.new_zeros(*before, keep, *after)
            self._queue[name] = like.new_zeros(*before, room, *after)
        device = like.device
        self._oldest = torch.zeros(1, dtype=torch.int64, device=device)
        self._count = torch.zeros(1, dtype=torch.int64, device=device)
        self._places = torch.arange(room, device=device)
        self._order = torch.arange(keep, device=device)

    def fits(self, recent: Recent) -> bool:
        """Whether these are still the rows it was made for."""
        name = next(iter(self._window))
        return self._window[name].shape[0] == recent[name].shape[0]

    def load(self, recent: Recent) -> None:
        """Take over what is held: `keep` tokens, and those before them, fewer than the room."""
        waiting = len(recent) - self._keep
        for name in self._window:
            self._queue[name][:, :, :waiting] = recent[name][:, :, :waiting]
            self._window[name].copy_(recent[name][:, :, waiting:])
        self._oldest.zero_()
        self._count.fill_(waiting)

    def push(self, **streams: Tensor) -> None:
        """A new token (B, X, 1, ...) of every stream; the oldest of the window waits now."""
        for name, value in streams.items():
            leaving = self._window[name].index_select(2, self._oldest)
            self._queue[name].index_copy_(2, self._count, leaving)
            self._window[name].index_copy_(2, self._oldest, value)
        self._count += 1
        self._oldest.add_(1).remainder_(self._keep)

    def window(self, stream: str) -> Tensor:
        """Tokens of the window (B, X, keep, ...), in no order."""
        return self._window[stream]

    def queue(self, stream: str) -> Tensor:
        """Tokens that wait (B, X, room, ...), oldest first, and behind them anything."""
        return self._queue[stream]

    def waits(self) -> Tensor:
        """Which places of the queue are taken (room,)."""
        return self._places < self._count

    def unload(self, recent: Recent) -> None:
        """Give all back, in order of arrival."""
        order = (self._order + self._oldest) % self._keep
        waiting = int(self._count)
        recent.drop(len(recent))
        recent.append(
            **{
                name: torch.cat((self._queue[name][:, :, :waiting], window[:, :, order]), 2)
                for name, window in self._window.items()
            }
        )
