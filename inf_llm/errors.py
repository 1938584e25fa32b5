"""What can go wrong, in words that a person can act on: the value, the rule, what is accepted.

Every error here is for the person at the keyboard. The command line prints its message and exits
with code 2, without a traceback; a program may catch `InfLLMError` for all of them.
"""

from __future__ import annotations


class InfLLMError(Exception):
    """Base of all errors this package raises on purpose."""


class SettingsError(InfLLMError, ValueError):
    """A setting has a value that is not allowed, alone or next to another one.

    `key` is the setting's name, so that a reader of a file can say where it stands.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class ConfigError(InfLLMError, ValueError):
    """A configuration file or an override cannot be used; the message names file and key."""


class UnsupportedModelError(InfLLMError, NotImplementedError):
    """The model does something this package cannot reproduce; the message says what."""


class UnsupportedInputError(InfLLMError, ValueError):
    """A mask, a cache or a batch of a kind that the memory cannot take."""


class MissingExtraError(InfLLMError, ImportError):
    """An optional dependency is absent; the message says what to install."""


class CropError(InfLLMError, RuntimeError):
    """The memory was asked to forget tokens that it no longer holds apart."""


class SavedMemoryError(InfLLMError, ValueError):
    """A saved memory cannot be read, or belongs to another model; the message says what differs."""


class TextError(InfLLMError, ValueError):
    """A text cannot be read or used as a prompt; the message says why and what would do."""


class RoomError(InfLLMError, MemoryError):
    """A model or a text does not fit the memory there is; the message says what would."""


def reason(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
