"""A custom eviction policy, chosen in a YAML file and compared with the package's policies.

    python examples/own_eviction.py

Runs offline, with the model that comes with the package. A policy decides which recalled block
leaves the device when another one comes in: it changes how often blocks are copied to the device,
never an answer. On a CPU nothing is copied, but the same events are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import inf_llm
from inf_llm.checks import require, typed
from inf_llm.demo import haystack_text
from inf_llm.generation import Session
from inf_llm.memory.evict import Number, Policy
from inf_llm.variants import EVICTION

CONFIG = Path(__file__).parent / "eviction.yaml"
NEEDLE = "The pass key is 48213. Remember it. 48213 is the pass key"


class LeastFrequentlyUsed(Policy):
    """Evict the block that was used least often; older uses count less and less."""

    @dataclass(frozen=True)
    class Settings:
        """Options in a YAML file.

        Attributes:
            fade: factor on all counts, once per execution block.
        """

        fade: float = 0.9

        def __post_init__(self) -> None:
            typed(self)
            message = f"fade = {self.fade} is out of range: it is a factor from 0 to 1"
            require(0 <= self.fade <= 1, "fade", message)

    def __init__(self, fade: float) -> None:
        self.fades = fade

    def loaded(self, now: Number) -> Number:
        """Return the priority of a block that comes in: one use."""
        return now * 0 + 1

    def used(self, before: Number, now: Number) -> Number:
        """Return the priority of a block that is used again: one use more."""
        return before + 1


def main() -> None:
    """Ask the same question with each policy."""
    EVICTION.add("lfu", LeastFrequentlyUsed)
    sentences = haystack_text().split(". ")[:80]
    sentences.insert(20, NEEDLE)
    for overrides in ([], ["model.eviction=lru"], ["model.eviction=fifo"]):
        model, tokenizer = inf_llm.load(CONFIG, overrides)
        session = Session(model, tokenizer)
        session.read(". ".join(sentences))
        answer = session.ask(
            "\nWhat is the pass key? The pass key is", max_new_tokens=8, stop=["."]
        )
        stats = session.stats()
        share = stats.hits / (stats.hits + stats.misses)
        name = "lfu" if not overrides else overrides[0].partition("=")[2]
        print(f"{name:>4}: {answer.text.strip()}; {share:.1%} of the recalled blocks were there")


if __name__ == "__main__":
    main()
