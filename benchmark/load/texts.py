"""What clients say: texts of a length, and short questions, different each time."""

from __future__ import annotations

import random
from typing import Any

from inf_llm.demo.trial import haystack_text

_TOPICS = ("rivers", "kings", "bread", "glass", "winter", "trains", "bees", "salt", "music")


class Texts:
    """Texts by a seed.

    Args:
        tokenizer: the model's, by which lengths are measured.
        seed: of all choices.
    """

    def __init__(self, tokenizer: Any, seed: int) -> None:
        self.random = random.Random(seed)
        self._words = haystack_text().split(" ")
        sample = " ".join(self._words[:20_000])
        self._tokens_a_word = len(tokenizer(sample, verbose=False)["input_ids"]) / 20_000

    def book(self, tokens: int) -> str:
        """About so many tokens, beginning anywhere."""
        count = int(tokens / self._tokens_a_word)
        first = self.random.randrange(len(self._words))
        again = 1 + (first + count) // len(self._words)
        words = (self._words * (1 + again))[first : first + count]
        return f"Text {self.random.randrange(10**9)}. " + " ".join(words)

    def question(self) -> str:
        """A short question."""
        one, other = self.random.sample(_TOPICS, 2)
        return f"What do {one} and {other} have to do with {self.random.randrange(10_000)}?"
