"""A prompt in two parts has the tokens of the whole, encoded at once."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from inf_llm.conversation import BETWEEN, USER
from inf_llm.generation import PromptStart, choose_layout, encode, finish_prompt, start_prompt

TEXTS = [
    "The pass key is 7.",
    "It ends with a colon:",
    "It ends with an empty line\n\n",
    "Ends. \n",
    "ß — naïve 日本語 🙂",
    "?",
    "A long one. " * 60,
]
QUESTIONS = ["What?", "Where is it?", "\n1", "...", "日本"]
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"


@pytest.fixture(scope="module")
def merging() -> Any:
    """A tokenizer that merges across the places where texts and questions meet."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    parts = [text + BETWEEN + question for text in TEXTS for question in QUESTIONS]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=alphabet,
        special_tokens=["<|user|>", "<|end|>", "<|assistant|>"],
    )
    inner.train_from_iterator(parts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=TEMPLATE)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("conv_type", [None, "plain"])
def test_both_parts_are_the_whole(merging: Any, text: str, conv_type: str | None) -> None:
    layout = choose_layout(merging, conv_type)
    start = start_prompt(merging, layout, text)
    for question in QUESTIONS[:2]:
        prompt = layout.prompt([{"role": USER, "content": text + BETWEEN + question}])
        whole = encode(merging, prompt, layout.adds_special)
        parts = start.ids + finish_prompt(merging, layout, start, question)
        if len(text) > 500:  # this tokenizer merges more than a person would ever see
            parts, whole = merging.decode(parts), merging.decode(whole)
        assert parts == whole


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_after_another(merging: Any, text: str) -> None:
    layout = choose_layout(merging)
    first = start_prompt(merging, layout, "It was read before.")
    both = start_prompt(merging, layout, text, first)
    assert both.ids[: len(first.ids)] == first.ids
    prompt = merging.decode(both.ids + finish_prompt(merging, layout, both, "What?"))
    assert prompt == f"<|user|>It was read before.{BETWEEN}{text}{BETWEEN}What?<|end|><|assistant|>"


def test_control_without_the_rest_something_is_lost(merging: Any) -> None:
    layout = choose_layout(merging)
    lost = 0
    for text in TEXTS:
        start = start_prompt(merging, layout, text)
        bare = PromptStart(start.ids, "")
        lost += finish_prompt(merging, layout, bare, "What?") != finish_prompt(
            merging, layout, start, "What?"
        )
    assert lost


def test_no_question_continues_the_text(merging: Any) -> None:
    layout = choose_layout(merging, "plain")
    start = start_prompt(merging, layout, "The pass key is 7.")
    prompt = merging.decode(start.ids + finish_prompt(merging, layout, start, ""))
    assert prompt == "The pass key is 7."
