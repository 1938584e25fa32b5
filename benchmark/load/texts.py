"""Random texts of a given length and random short questions for the clients."""

from __future__ import annotations

import random
from typing import Any

from inf_llm.demo.trial import haystack_text

_TOPICS = ("rivers", "kings", "bread", "glass", "winter", "trains", "bees", "salt", "music")


class Texts:
    """Texts and questions drawn with a seed.

    Args:
        tokenizer: the model's tokenizer, which measures lengths.
        seed: seed of all random choices.
    """

    def __init__(self, tokenizer: Any, seed: int) -> None:
        self.random = random.Random(seed)
        self._words = haystack_text().split(" ")
        sample = " ".join(self._words[:20_000])
        self._tokens_a_word = len(tokenizer(sample, verbose=False)["input_ids"]) / 20_000

    def book(self, tokens: int) -> str:
        """Return a text of about `tokens` tokens that starts at a random word."""
        count = int(tokens / self._tokens_a_word)
        first = self.random.randrange(len(self._words))
        again = 1 + (first + count) // len(self._words)
        words = (self._words * (1 + again))[first : first + count]
        return f"Text {self.random.randrange(10**9)}. " + " ".join(words)

    def question(self) -> str:
        """Return a short question."""
        one, other = self.random.sample(_TOPICS, 2)
        return f"What do {one} and {other} have to do with {self.random.randrange(10_000)}?"
