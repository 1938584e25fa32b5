"""One read that fills several memories at once.

A `Tee` takes the place of a layer's attention object and has several of them as members. All
members get the same queries, keys and values; the output of the first goes back to the model. So
one read with full attention fills the memories of all rules. While an answer is fed, the tee
measures how much of the mass of full attention's queries each memory recalls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from inf_llm.attention.base import LayerAttention, Rule, running
from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.attention.origin import OriginAttention
from inf_llm.fidelity.mass import true_mass
from inf_llm.fidelity.oracle import OracleAttention
from inf_llm.fidelity.recall import Choices, held_mass
from inf_llm.hf.cache import MemoryCache
from inf_llm.settings import InfLLMSettings


@dataclass
class Probe:
    """A request to measure recall while tokens are fed, and its results.

    Attributes:
        first: position of the first query that counts.
        needle: positions of the needle's first token and of the token after its last, or None.
        found: the sums of `held_mass`, by name of the member.
    """

    first: int
    needle: tuple[int, int] | None
    found: dict[str, Tensor] = field(default_factory=dict)


class Tee(LayerAttention):
    """Several attention objects of one layer that get the same input.

    Args:
        members: attention objects by name; the output of the first is that of the layer.

    Attributes:
        probe: set to measure recall against full attention, which must be the first member.
    """

    def __init__(self, members: Mapping[str, LayerAttention]) -> None:
        first = next(iter(members.values()))
        super().__init__(first.rope, first.block)
        self.members = dict(members)
        self.probe: Probe | None = None

    def decode_from(self, position: int | None) -> None:
        """See `LayerAttention.decode_from`."""
        for member in self.members.values():
            member.decode_from(position)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """See `LayerAttention.attend`."""
        (_, first), *others = self.members.items()
        output = first.attend(q, k, v, rule)
        mass = self._mass(q, rule)
        for name, other in others:
            if isinstance(other, OracleAttention):
                other.keep(k, v)
                continue
            with _watched() as choices:
                other.attend(q, k, v, rule)
            if mass is not None and isinstance(other, InfLLMAttention):
                self._note(name, other.settings, choices, mass)
        self.seen += q.shape[2]
        return output

    def _note(self, name: str, settings: InfLLMSettings, choices: Choices, mass: Tensor) -> None:
        """Record what a member recalled of the mass (B, H, L, N) of the newest queries."""
        assert self.probe is not None
        first = mass.shape[3] - mass.shape[2]
        self.probe.found[name] = held_mass(settings, choices, mass, first, self.probe.needle)

    def _mass(self, q: Tensor, rule: Rule) -> Tensor | None:
        """Return full attention's mass (B, H, L, N) of the queries to measure; None without any."""
        full = next(iter(self.members.values()))
        if self.probe is None or not isinstance(full, OriginAttention):
            return None
        first = max(self.probe.first, self.seen)
        queries = full.rope.rotate(q[:, :, first - self.seen :], first)
        return true_mass(queries, full.recent["k"], first, rule)

    def _execute(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        raise NotImplementedError  # unused: each member cuts execution blocks in its own `attend`

    def fork(self) -> Tee:
        """See `Stateful.fork`."""
        twin = super().fork()
        twin.members = {name: member.fork() for name, member in self.members.items()}
        return twin

    @property
    def nbytes(self) -> int:
        """See `Stateful.nbytes`."""
        return sum(member.nbytes for member in self.members.values())


@contextmanager
def _watched() -> Iterator[Choices]:
    """Record the blocks that a layer recalls while it is fed within the statement."""
    choices = Choices()
    token = running.set(replace(running.get(), observers=(choices,)))
    try:
        yield choices
    finally:
        running.reset(token)


def tees(cache: MemoryCache) -> list[Tee]:
    """Return all tees of a cache, layer by layer."""
    members = [member for layer in cache.memories for member in layer.rows.members]
    return [member for member in members if isinstance(member, Tee)]


def of_one(cache: MemoryCache, name: str) -> MemoryCache:
    """Return a copy of a cache that continues with the members of one name only."""
    held = [(tee, tee.members) for tee in tees(cache)]
    try:
        for tee, members in held:
            tee.members = {name: members[name]}
        return cache.fork()
    finally:
        for tee, members in held:
            tee.members = members


def recall(cache: MemoryCache) -> dict[str, Tensor]:
    """Return the results of the probes of a cache: sums of mass (layers, 6), by name."""
    probes = [tee.probe for tee in tees(cache)]
    results = [probe.found for probe in probes if probe is not None and probe.found]
    names = results[0] if results else ()
    return {name: torch.stack([layer[name] for layer in results]) for name in names}
