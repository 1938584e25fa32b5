"""The model card, rendered from measured figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo_model.measure import PositionLoss
from demo_model.network import Shape

TEMPLATE = """---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The embedded demo model

A `LlamaForCausalLM` of {parameters:.1f} million parameters, trained from nothing at a context of
{context} tokens. It is good at one thing: finding facts in its context. It exists to show, on any
computer and without a network, what the attention types of this package do far past the trained
length. It is no assistant and knows nothing.

| | |
|---|---|
| shape | {layers} layers, {width} wide, {heads} query, {kv_heads} key/value heads of {head_dim} |
| tokenizer | byte-level BPE, {vocab} tokens, every digit on its own, `<s>` put first |
| context | {context} tokens, RoPE base 10,000 |
| trained on | {tokens:,} tokens in {steps:,} steps, {minutes:.0f} minutes on {device} |
| seed | {seed} |
| weights | bfloat16, {megabytes:.1f} MB |
| licence | weights: MIT; `haystack.txt.xz`: public domain |

## Data

English books in the public domain ({text_tokens:,} tokens), and rows made by
`scripts/demo_model/samples.py`: passages with hidden facts (pass keys, digit strings, key-value
pairs, numbers of places, assignments, register lines) and questions about them behind, a quarter of
them as a chat. In four of ten steps attention sees what is farther than a window as a block memory
shows it: in no order, all at one distance, some of it missing, with the texts of other rows among
it (`scripts/demo_model/geometry.py`). The weights are an ordinary Llama's all the same.

## Made by

```bash
{command}
```

A command with `--grow` goes on from a finished model, with one more layer that looks farther back
(`scripts/demo_model/network.py`). `training_log.json` has the settings, the plan and a line for
every 50 steps.

## Measured

Loss on books by other authors, nats per token, by position in the row ({rows} rows):

| position | loss |
|---|---|
{positions}

For comparison, with the same tokenizer and counted on the training text: unigram
{unigram:.2f}, bigram {bigram:.2f}.

Found within {context} tokens, of {count} each, exact match on greedily generated text, depths
even, with plain full attention (tasks of `inf_llm.needles`; "chat" is the pass key asked for
through the chat template):

| task | found |
|---|---|
{found}

## Chat

The tokenizer has a chat template with `<|system|>`, `<|user|>`, `<|assistant|>` and `<|end|>`.
Put a text and a question about a fact in it (`What is the pass key?`) in the user's turn.

## Limits

Retrieval of facts worded like those it was trained on, in English prose. It does not reason, follow
instructions or write well, and nothing it says should be relied on.

## `haystack.txt.xz`

About a million characters of the held-out books, for building haystacks. Nothing of it was trained
on, and the figures above were measured on the rest of the held-out text.
"""


@dataclass(frozen=True)
class Figures:
    """Figures measured after training."""

    positions: list[PositionLoss]
    baselines: dict[str, float]
    found: dict[str, float]
    rows: int
    count: int


def render(shape: Shape, run: dict[str, Any], figures: Figures) -> str:
    """Return the text of the card.

    Args:
        shape: sizes of the network.
        run: parameters, tokens, steps, minutes, device, seed, megabytes, text_tokens, command.
        figures: see `Figures`.
    """
    positions = "\n".join(
        f"| {bucket.first} to {bucket.last} | {bucket.loss:.3f} |" for bucket in figures.positions
    )
    found = "\n".join(f"| {task} | {share:.3f} |" for task, share in figures.found.items())
    return TEMPLATE.format(
        layers=shape.layers,
        width=shape.width,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab=shape.vocab,
        context=shape.context,
        positions=positions,
        found=found,
        rows=figures.rows,
        count=figures.count,
        unigram=figures.baselines["unigram"],
        bigram=figures.baselines["bigram"],
        **run,
    )


def write_card(folder: Path, shape: Shape, run: dict[str, Any], figures: Figures) -> None:
    """Write the card to the file in which model hubs expect it."""
    (folder / "README.md").write_text(render(shape, run, figures), encoding="utf-8")
