"""Read a text once, then ask several questions about it.

    python examples/read_and_ask.py

Runs offline: the model comes with the package. It has 3.7 million parameters, was trained at a
context of 512 tokens and is good at one thing, finding a fact in a text. To use another model, load
its configuration and ask in the form that the model was trained on.
"""

from __future__ import annotations

import time
from pathlib import Path

import inf_llm
from inf_llm.demo import haystack_text
from inf_llm.generation import Session

CONFIG = Path(__file__).parent.parent / "config" / "demo-inf-llm.yaml"
FACTS = (
    (0.2, "The pass key is 48213. Remember it. 48213 is the pass key"),
    (
        0.6,
        "The sequence of digits is 8830417725. Remember it. 8830417725 is the sequence of digits",
    ),
)
QUESTIONS = (
    "What is the pass key? The pass key is",
    "What is the sequence of digits? The sequence of digits is",
)


def book(sentences: int) -> str:
    """Return English prose with the facts at their depths."""
    text = haystack_text().split(". ")[:sentences]
    for depth, fact in FACTS:
        text.insert(int(depth * sentences), fact)
    return ". ".join(text)


def main() -> None:
    """Read the text once, and ask each question on a fork of the session."""
    model, tokenizer = inf_llm.load(CONFIG)
    session = Session(model, tokenizer)
    started = time.perf_counter()
    session.read(book(sentences=120))
    print(f"read {len(session.ids):,} tokens in {time.perf_counter() - started:.1f} s")

    # A fork shares the text that was read, so that a question costs only its own tokens.
    for question in QUESTIONS:
        answer = session.fork().ask(f"\n{question}", max_new_tokens=16, stop=["."])
        print(f"{question}{answer.text} ({answer.seconds:.1f} s)")

    stats = session.stats()
    print(
        f"{stats.device_bytes / 1e6:.1f} MB of keys and values on the device, "
        f"{stats.host_bytes / 1e6:.1f} MB in host memory"
    )


if __name__ == "__main__":
    main()
