"""Inputs of the command line: the rules to compare, and the user's own questions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from inf_llm.checks import field_types
from inf_llm.config import ModelConfig, RunConfig, load_config
from inf_llm.errors import ConfigError, TextError
from inf_llm.fidelity.readers import ORACLE, Reader
from inf_llm.generation.documents import read_text
from inf_llm.settings import WindowSettings

_WORD = re.compile(r"(?:[^\s{]|\{[^}]*\})+")
"""A word between spaces; spaces within braces do not separate."""
_NOT_OF_A_RULE = {*field_types(RunConfig), *(f"model.{key}" for key in field_types(ModelConfig))}


def read_rules(
    config: str, first: RunConfig, overrides: Sequence[str], against: Sequence[str]
) -> list[Reader]:
    """Return the first rule and the rules to compare it with.

    Args:
        config: name or file of the first rule's configuration.
        first: that configuration as loaded, with the overrides.
        overrides: KEY=VALUE texts applied to the configuration.
        against: one text per other rule, made of words: at most one name or file of a
            configuration (without one, the first rule's and its overrides are used), KEY=VALUE
            texts applied to that configuration, where `model.` may be left out, and "oracle".

    Raises:
        ConfigError: a configuration cannot be read, or is full attention.
    """
    changes = [text for text in overrides if text.partition("=")[0] not in _NOT_OF_A_RULE]
    name = " ".join(
        (
            Path(config).name.removesuffix(".yaml"),
            *(text.removeprefix("model.") for text in changes),
        )
    )
    others = [_other(config, first, overrides, text) for text in against]
    return [Reader(name, _windowed(first, name)), *others]


def _other(config: str, first: RunConfig, overrides: Sequence[str], text: str) -> Reader:
    words = _WORD.findall(text)
    changes = [_dotted(word) for word in words if "=" in word]
    named = [word for word in words if "=" not in word and word != ORACLE]
    if len(named) > 1 or not words:
        raise ConfigError(
            f"--against {text!r}: one configuration at most, then key=value settings, with spaces "
            f"between; or {ORACLE!r}"
        )
    laid = changes if named else [*overrides, *changes]
    other = load_config(named[0] if named else config, laid, model=first.model.path)
    return Reader(text, _windowed(other, text), oracle=ORACLE in words)


def _dotted(word: str) -> str:
    """Return an override in the form that `load_config` accepts, with `model.` where needed."""
    inside = word.partition("=")[0].partition(".")[0] not in field_types(RunConfig)
    return f"model.{word}" if inside else word


def _windowed(config: RunConfig, name: str) -> WindowSettings:
    settings = config.attention
    if not isinstance(settings, WindowSettings):
        raise ConfigError(
            f"{name}: type {settings.type!r} is full attention, which every rule is compared with "
            "anyway: name one with a window"
        )
    return settings


def read_questions(file: Path) -> tuple[tuple[str, str], ...]:
    """Read questions and answers from a file with one JSON object per line.

    Raises:
        TextError: the file cannot be read, or a line is not such an object.
    """
    lines = enumerate(read_text(file).splitlines(), 1)
    return tuple(_question(file, number, line) for number, line in lines if line.strip())


def _question(file: Path, number: int, line: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
        question, answer = row["question"].strip(), row["answer"].strip()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        question = answer = ""
    if not question or not answer:
        raise TextError(
            f"--qa-file {file}, line {number}: one JSON object is needed, as "
            '{"question": "Who ...?", "answer": "..."}'
        )
    return question, answer
