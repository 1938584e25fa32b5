"""The errors of this package. Their messages say what to do: the value, the rule, valid values.

All these errors are for the user. The command line prints the message and exits with code 2,
without a traceback; a program can catch `InfLLMError` for all of them.
"""

from __future__ import annotations


class InfLLMError(Exception):
    """Base of all errors this package raises on purpose."""


class SettingsError(InfLLMError, ValueError):
    """A setting has a value that is not allowed, by itself or together with another setting.

    `key` is the name of the setting, so that code that reads a file can say where the setting is.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class ConfigError(InfLLMError, ValueError):
    """A configuration file or an override is not usable; the message names the file and the key."""


class UnsupportedModelError(InfLLMError, NotImplementedError):
    """The model has a feature that this package cannot reproduce; the message names the feature."""


class UnsupportedInputError(InfLLMError, ValueError):
    """A mask, a cache or a batch is of a kind that the memory does not support."""


class MissingExtraError(InfLLMError, ImportError):
    """An optional dependency is not installed; the message says what to install."""


class CropError(InfLLMError, RuntimeError):
    """A crop would remove tokens that are already merged into blocks of the memory."""


class SavedMemoryError(InfLLMError, ValueError):
    """A saved memory cannot be read, or belongs to another model; the message says what differs."""


class TextError(InfLLMError, ValueError):
    """A text cannot be read or used as a prompt; the message gives the reason and a remedy."""


class RoomError(InfLLMError, MemoryError):
    """A model or a text does not fit in the available memory; the message says what would fit."""


def reason(error: BaseException) -> str:
    """The message of an error as one line; the name of its class if the message is empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
