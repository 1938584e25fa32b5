"""Conversion of input to a list of token ids: from a text, or from ids in any common form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from inf_llm.checks import check_text
from inf_llm.errors import TextError
from inf_llm.generation.control import Span, as_text, encoded

Readable = str | Iterable[int] | Mapping[str, Any]
"""A text; token ids as a list, tensor or array (n,) or (1, n); or the output of a tokenizer."""

_ACCEPTED = "a text is accepted, or the token ids of one text: whole numbers, (n,) or (1, n)"


def vocabulary(model: Any) -> int:
    """Return the vocabulary size of a model: the rows of its input embedding."""
    return int(model.get_input_embeddings().weight.shape[0])


def encode(tokenizer: Any, text: str, add_special_tokens: bool = True) -> list[int]:
    """Return the token ids of a text of any length.

    Control tokens in contents masked by `as_text` are encoded as ordinary text.

    Raises:
        TextError: the value is not a text; see `check_text`.
    """
    check_text("the text", text)
    hidden = encoded(tokenizer, text, add_special_tokens)
    if hidden is not None:
        return hidden[0]
    return list(_encoding(tokenizer, text, add_special_tokens)["input_ids"])


def encode_with_places(
    tokenizer: Any, text: str, add_special_tokens: bool
) -> tuple[list[int], list[Span] | None]:
    """Return the ids as `encode` does, and the characters [start, end) of each token.

    The characters are None for a slow tokenizer.
    """
    hidden = encoded(tokenizer, text, add_special_tokens)
    if hidden is not None:
        return hidden
    if not getattr(tokenizer, "is_fast", False):
        return encode(tokenizer, text, add_special_tokens), None
    encoding = _encoding(tokenizer, text, add_special_tokens, return_offsets_mapping=True)
    return list(encoding["input_ids"]), list(encoding["offset_mapping"])


def _encoding(tokenizer: Any, text: str, special: bool, **more: bool) -> Mapping[str, Any]:
    encoding: Mapping[str, Any] = tokenizer(
        text, add_special_tokens=special, truncation=False, verbose=False, **more
    )
    return encoding


def token_ids(
    tokenizer: Any,
    given: Readable,
    known: int,
    first: bool = True,
    control_tokens: bool = False,
) -> list[int]:
    """Return the token ids of a text, or check ids and return them as a list.

    Args:
        tokenizer: the tokenizer of the model.
        given: a text or its ids; see `Readable`.
        known: vocabulary size; ids from 0 to `known` - 1 exist.
        first: whether a text begins its prompt, so that special tokens are added before it.
        control_tokens: whether a text may contain control tokens.

    Raises:
        TextError: the value is neither a text nor ids, or has ids outside the vocabulary.
    """
    if not isinstance(given, str):
        return known_ids(given, known)
    text = given if control_tokens else as_text(tokenizer, given)
    ids = encode(tokenizer, text, add_special_tokens=first) if text else []
    if ids and max(ids) >= known:
        raise TextError(
            f"the tokenizer gives token id {max(ids)}, but this model knows ids from 0 to "
            f"{known - 1} only: use the tokenizer that belongs to the model"
        )
    return ids


def known_ids(given: Any, known: int) -> list[int]:
    """Check token ids and return them as a list; see `token_ids`. No text is accepted."""
    ids = _plain(given)
    place = next((i for i, token in enumerate(ids) if not 0 <= token < known), None)
    if place is not None:
        raise TextError(
            f"token id {ids[place]} (at place {place:,}) does not exist: this model knows ids from "
            f"0 to {known - 1}"
        )
    return ids


def _plain(given: Any) -> list[int]:
    """Return ids as a list of int."""
    if isinstance(given, bytes | bytearray | memoryview):
        raise _unreadable(f"{type(given).__name__}: decode them first, as in data.decode()")
    if isinstance(given, Mapping):
        return _encoded(given)
    ordered = isinstance(given, Iterable) and not isinstance(given, Set)
    if not ordered or not getattr(given, "ndim", 1):
        raise _unreadable(f"{type(given).__name__} ({str(given)[:40]})")
    items = given.tolist() if hasattr(given, "tolist") else list(given)
    if items and _is_row(items[0]):
        if len(items) > 1:
            raise _unreadable(f"{len(items)} rows: read one text at a time")
        return _plain(items[0])
    items = [item.item() if hasattr(item, "item") else item for item in items]
    for place, item in enumerate(items):
        if not isinstance(item, int) or isinstance(item, bool):
            raise _unreadable(f"a {type(given).__name__} with {item!r:.40} at place {place:,}")
    return items


def _encoded(given: Mapping[str, Any]) -> list[int]:
    """Return the ids in the output of a tokenizer."""
    if "input_ids" not in given:
        raise _unreadable(f"a {type(given).__name__} without 'input_ids'")
    mask = given.get("attention_mask")
    if mask is not None and not all(_plain(mask)):
        raise _unreadable("a text with padding: encode it with padding=False")
    return _plain(given["input_ids"])


def _is_row(item: Any) -> bool:
    """Return whether an item of a list is a row: a list, a tuple, or a tensor that is no scalar."""
    dimensions = getattr(item, "ndim", None)
    return isinstance(item, list | tuple) if dimensions is None else dimensions > 0


def _unreadable(what: str) -> TextError:
    return TextError(f"cannot read {what}; {_ACCEPTED}")
