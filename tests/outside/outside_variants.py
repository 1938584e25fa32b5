"""Variants of another distribution: one row of every kind, found by its entry points."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import torch

from inf_llm.attention.positions import OneDistance
from inf_llm.attention.window import InfiniteLMAttention
from inf_llm.checks import require, typed
from inf_llm.generation.calls.bare import Bare
from inf_llm.kernels import reference
from inf_llm.memory.codec import RawCodec
from inf_llm.memory.evict import Policy
from inf_llm.memory.index import TorchIndex
from inf_llm.memory.selection import LayerSelection
from inf_llm.memory.summary import Summary
from inf_llm.memory.tiers import HostTier
from inf_llm.needles.base import Draft, Family
from inf_llm.settings import WindowSettings


class RandomPage(Policy):
    """Any page leaves."""

    @dataclass(frozen=True)
    class Settings:
        seed: int = 0

        def __post_init__(self) -> None:
            typed(self)
            require(self.seed >= 0, "seed", f"seed = {self.seed} is negative")

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def used(self, before, now):
        return now * 0 + self._random.random()


class First(Summary):
    """The first key of a block."""

    def vectors(self, k, mass):
        return k[..., :1, :]


class FirstHead(LayerSelection):
    """The first query head chooses for all."""

    def ask(self, query):
        asked = super().ask(query).unflatten(2, (self.summaries, -1)).clone()
        asked[:, :, 1:] = 0
        return asked.flatten(2)


class Beside(OneDistance):
    """All far keys at the place of the query."""

    def place(self, q, searched, far):
        return self.rope.rotate_far(q, 0), far.kept_k, far.recalled_k


class KeysAlone(RawCodec):
    """Values come back as zeros."""

    def decode(self, planes):
        k, v = super().decode(planes)
        return k, torch.zeros_like(v)


class Empty(HostTier):
    """All pages are zeros."""

    def read(self, pages):
        return tuple(torch.zeros_like(plane) for plane in super().read(pages))


class Newest(TorchIndex):
    """Always the newest blocks."""

    def search(self, query, topk, total, table):
        numbers = torch.arange(total - topk, total, device=query.device)
        return numbers.expand(*query.shape[:2], topk), query.new_zeros(*query.shape[:2], topk)


class Plain:
    """The reference, counted."""

    calls = 0
    received = staticmethod(reference.received)

    @staticmethod
    def why_not(scoring, *inputs):
        return None

    @staticmethod
    def attend(*args):
        Plain.calls += 1
        return reference.attend(*args)


class Half:
    """Positions divided by two."""

    def __call__(self, rope):
        return rope.rescaled(None, 0.5)


@dataclass(frozen=True)
class WindowedSettings(WindowSettings):
    type: ClassVar[str] = "outside-window"
    shorter: int = 0


def windowed(rope, settings):
    return InfiniteLMAttention(rope, settings)


windowed.Settings = WindowedSettings


@dataclass(frozen=True)
class Motto(Family):
    """One sentence in front of others."""

    def compose(self, rng, units, depth, haystack, length):
        return Draft("Be kind. " + "Go on. " * units, "\nBe", ("kind",))


MOTTO = Motto("outside-motto", rule="has_word", max_new_tokens=4)


class Arrow(Bare):
    """Another name for a form of the package's own."""

    marks = ("=>",)
