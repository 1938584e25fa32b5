"""Chat templates of the models in the publication: `conv_type` of the configuration.

They are Jinja templates in the form that tokenizers use. Later models have a chat template in their
tokenizer; the templates here serve checkpoints without one, and the published configurations.
"""

from __future__ import annotations

USER, ASSISTANT = "user", "assistant"
BETWEEN = "\n\n"
"""The separator between a document and the question or request about the document."""
PLAIN = "plain"
"""The conv_type without a template: the model gets the text as it is."""

_VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def _turns(user: str, assistant: str, opening: str = "", answer: str = "") -> str:
    """Make a template from the texts around a message, which is `{}` in `user` and `assistant`.

    `opening` comes before the first message; `answer` is the generation prompt.
    """
    before_user, after_user = user.split("{}")
    before_assistant, after_assistant = assistant.split("{}")
    return (
        f"{opening}{{% for message in messages %}}"
        f"{{% if message['role'] == 'assistant' %}}"
        f"{before_assistant}{{{{ message['content'] }}}}{after_assistant}"
        f"{{% else %}}{before_user}{{{{ message['content'] }}}}{after_user}{{% endif %}}"
        f"{{% endfor %}}{{% if add_generation_prompt %}}{answer}{{% endif %}}"
    )


def _headed(role: str, head: str, tail: str) -> str:
    return head.replace("ROLE", role) + "{}" + tail


_LLAMA_3 = ("<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>")
_CHATML = ("<|im_start|>ROLE\n", "<|im_end|>\n")

TEMPLATES: dict[str, str] = {
    "mistral-inst": _turns("[INST] {} [/INST]", "{}{{ eos_token }}", opening="{{ bos_token }}"),
    "llama-3-inst": _turns(
        _headed("user", *_LLAMA_3),
        _headed("assistant", *_LLAMA_3),
        opening="{{ bos_token }}",
        answer=_LLAMA_3[0].replace("ROLE", "assistant"),
    ),
    "qwen": _turns(
        _headed("user", *_CHATML),
        _headed("assistant", *_CHATML),
        opening=_headed("system", *_CHATML).format("You are a helpful assistant"),
        answer=_CHATML[0].replace("ROLE", "assistant"),
    ),
    "vicuna": _turns(
        " USER: {}",
        " ASSISTANT: {}</s>",
        opening="{{ bos_token }}" + _VICUNA_SYSTEM,
        answer=" ASSISTANT:",
    ),
    "minicpm": _turns("<用户>{}", "<AI>{}", opening="{{ bos_token }}", answer="<AI>"),
}

CONV_TYPES = (*TEMPLATES, PLAIN)
"""Every name that `conv_type` accepts; without a name, the tokenizer's own template is used."""
