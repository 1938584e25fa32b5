"""Which template lays a conversation out."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from inf_llm.conversation import CONV_TYPES, TEMPLATES
from inf_llm.errors import SettingsError, TextError
from inf_llm.generation.layout import choose_layout
from tests.chat.conftest import chat_tokenizer
from tests.checkpoints import script

HELLO = [{"role": "user", "content": "Hello"}]
TALK = [*HELLO, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Who?"}]


LAID_OUT = {
    None: "Hi",
    "plain": "Hi",
    "mistral-inst": "<s>[INST] Hi [/INST]",
    "llama-3-inst": "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "qwen": "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n"
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "vicuna": "<s>A chat between a curious user and an artificial intelligence assistant. The "
    "assistant gives helpful, detailed, and polite answers to the user's questions. "
    "USER: Hi ASSISTANT:",
    "minicpm": "<s><用户>Hi<AI>",
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """With a template of its own."""
    return chat_tokenizer()


@pytest.fixture
def plain_tokenizer() -> Any:
    """Without a template of its own."""
    return script().make_tokenizer()


def test_own_template_first(tokenizer: Any) -> None:
    layout = choose_layout(tokenizer)
    assert layout.prompt(TALK) == "<user>Hello</s><assistant>Hi.</s><user>Who?</s><assistant>"
    assert layout.ends == (tokenizer.eos_token_id,)


def test_plain_without_any(plain_tokenizer: Any, tokenizer: Any) -> None:
    assert choose_layout(plain_tokenizer).prompt(TALK) == "Hello\n\nHi.\n\nWho?"
    assert choose_layout(tokenizer, "plain").prompt(HELLO) == "Hello"


@pytest.mark.parametrize("name", TEMPLATES)
def test_published_names(plain_tokenizer: Any, name: str) -> None:
    prompt = choose_layout(plain_tokenizer, name).prompt(TALK)
    assert prompt.index("Hello") < prompt.index("Hi.") < prompt.index("Who?")


def test_the_token_after_an_answer_ends_it(plain_tokenizer: Any) -> None:
    plain_tokenizer.add_tokens(["<|im_end|>", "<|other|>"], special_tokens=True)
    ends = choose_layout(plain_tokenizer, "qwen").ends
    assert plain_tokenizer.convert_ids_to_tokens(list(ends)) == ["<|im_end|>"]


def test_fastchat_names(tokenizer: Any) -> None:
    pytest.importorskip("fastchat", reason="needs inf-llm[chat]")
    layout = choose_layout(tokenizer, "zero_shot")
    assert layout.roles == ("Human", "Assistant")
    assert layout.stops == ("###",)
    assert layout.prompt(TALK).endswith("Human: Who?\n### Assistant:")
    with pytest.raises(SettingsError, match="did you mean 'vicuna'"):
        choose_layout(tokenizer, "vicunna")


def test_unknown_name_without_fastchat(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastchat.conversation", None)
    with pytest.raises(SettingsError, match=r"zero_shot.*pip install 'inf-llm\[chat\]'"):
        choose_layout(tokenizer, "zero_shot")


def test_a_template_that_refuses(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = "{{ raise_exception('roles must alternate') }}"
    monkeypatch.setattr(tokenizer, "chat_template", refusing)
    layout = choose_layout(tokenizer)
    with pytest.raises(TextError, match="does not take this conversation: roles must alternate"):
        layout.prompt(HELLO)


@pytest.mark.parametrize("conv_type", [None, *CONV_TYPES])
def test_user_message(plain_tokenizer: Any, conv_type: str | None) -> None:
    layout = choose_layout(plain_tokenizer, conv_type)
    prompt, add_special = layout.prompt([{**HELLO[0], "content": "Hi"}]), layout.adds_special
    assert prompt == LAID_OUT[conv_type]
    assert add_special == (conv_type in (None, "plain"))


PARTS = (
    "{% for m in messages %}[{{ m['role'] }}]{% for part in m['content'] "
    "| selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
EITHER = (
    "{% for m in messages %}[{{ m['role'] }}]{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{{ m['content'][0]['text'] }} in parts{% endif %}{% endfor %}"
)


def test_a_template_that_wants_parts_gets_them(plain_tokenizer: Any) -> None:
    plain_tokenizer.chat_template = PARTS
    wanted = "[user]Hello[assistant]Hi.[user]Who?[assistant]"
    assert choose_layout(plain_tokenizer).prompt(TALK) == wanted


def test_a_template_that_takes_both_gets_text(plain_tokenizer: Any) -> None:
    plain_tokenizer.chat_template = EITHER
    assert choose_layout(plain_tokenizer).prompt(HELLO) == "[user]Hello"


@pytest.mark.parametrize("as_list", [False, True])
def test_of_several_templates_the_default_is_used(plain_tokenizer: Any, as_list: bool) -> None:
    named = {"tool_use": "tools", "default": "<<{{ messages[0]['content'] }}>>"}
    rows = [{"name": name, "template": text} for name, text in named.items()]
    plain_tokenizer.chat_template = rows if as_list else named
    assert choose_layout(plain_tokenizer).prompt(HELLO) == "<<Hello>>"
    assert choose_layout(plain_tokenizer, "minicpm").prompt(HELLO) == "<s><用户>Hello<AI>"


def test_several_templates_without_a_default_are_named(plain_tokenizer: Any) -> None:
    plain_tokenizer.chat_template = {"tool_use": "a", "rag": "b"}
    with pytest.raises(SettingsError, match=r"tool_use, rag, but none called 'default'.*conv_type"):
        choose_layout(plain_tokenizer)
    assert choose_layout(plain_tokenizer, "plain").prompt(HELLO) == "Hello"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for m in messages %}{{ m['content'] }", "does not take this conversation"),
        ("{{ nothing.there }}", "does not take this conversation: 'nothing' is undefined"),
        ("{{ nothing }}", "leaves out what the user says ('Hello')"),
        ("{{ messages[0]['content'][:2] }}", "leaves out what the user says"),
        ("{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}", "leaves out"),
    ],
    ids=["syntax", "undefined", "empty", "cut", "dropped"],
)
def test_no_message_is_lost_without_a_word(plain_tokenizer: Any, template: str, says: str) -> None:
    plain_tokenizer.chat_template = template
    with pytest.raises(TextError) as caught:
        choose_layout(plain_tokenizer).prompt(HELLO)
    assert str(caught.value).startswith("the tokenizer's template")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_system_message_that_is_dropped_is_said(plain_tokenizer: Any) -> None:
    plain_tokenizer.chat_template = (
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    )
    layout = choose_layout(plain_tokenizer)
    assert layout.prompt(HELLO) == "Hello"
    with pytest.raises(TextError, match="leaves out what the system says \\('Answer in French'\\)"):
        layout.prompt([{"role": "system", "content": "Answer in French"}, *HELLO])


def test_space_around_a_message_and_thoughts_may_go(tokenizer: Any) -> None:
    question = [{"role": "user", "content": " Who?\n"}]
    thought = {"role": "assistant", "content": "THOUGHTHi."}
    assert "Hi." in choose_layout(tokenizer).prompt([*HELLO, thought, *question])


TAKEN_FOR_KEPT = {
    "it stands in the template": ("Please answer the question: ", ["question"], "user"),
    "another turn has it": ("{{ messages[-1].content }}|", ["cat", "Hi.", "The cat sat"], "user"),
    "answers": (
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
        ["Who?", "The king.", "When?"],
        "assistant",
    ),
    "an answer like a question": (
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
        ["Say it", "it", "Again"],
        "assistant",
    ),
}


@pytest.mark.parametrize("what", TAKEN_FOR_KEPT)
def test_words_that_stand_elsewhere_too_do_not_hide_a_loss(plain_tokenizer: Any, what: str) -> None:
    template, contents, lost = TAKEN_FOR_KEPT[what]
    plain_tokenizer.chat_template = template
    talk = [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(contents)]
    with pytest.raises(TextError, match=f"leaves out what the {lost} says"):
        choose_layout(plain_tokenizer).prompt(talk)


def test_a_template_that_knows_its_words_is_not_refused(plain_tokenizer: Any) -> None:
    """It refuses the words that turns are tried with, and keeps the real ones."""
    plain_tokenizer.chat_template = (
        "{% for m in messages %}{% if not m.content[0] in 'HW' %}{{ raise_exception('no') }}"
        "{% endif %}{{ m.content }}{% endfor %}"
    )
    assert choose_layout(plain_tokenizer).prompt(TALK) == "HelloHi.Who?"


@pytest.mark.parametrize("conv_type", [3, b"plain", ["plain"]])
def test_a_name_is_text(plain_tokenizer: Any, conv_type: Any) -> None:
    with pytest.raises(SettingsError, match=r"conv_type = .* is not text or null"):
        choose_layout(plain_tokenizer, conv_type)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (3, "the chat template 3, no text: choose a layout with conv_type"),
        ([{"name": "a"}], "the chat templates a, but none called 'default'"),
        ([{"template": "x"}, 5], "the chat templates None, but none called 'default'"),
        ({"default": None}, "none called 'default'"),
    ],
)
def test_a_template_that_is_no_text(plain_tokenizer: Any, template: Any, says: str) -> None:
    plain_tokenizer.chat_template = template
    with pytest.raises(SettingsError, match=says):
        choose_layout(plain_tokenizer)


@pytest.mark.parametrize("none", [{}, [], ""])
def test_no_template_in_any_form(plain_tokenizer: Any, none: Any) -> None:
    plain_tokenizer.chat_template = none
    assert choose_layout(plain_tokenizer).prompt(HELLO) == "Hello"
