"""What a command reads, and a line that says what it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inf_llm.cli.failures import say

if TYPE_CHECKING:
    from inf_llm.formats import DocumentText


def open_document(file: Path | None) -> DocumentText:
    """The text of a file, or of standard input where it is None or "-", and its places.

    Raises:
        TextError: no text can be read from it.
        MissingExtraError: the package that reads files of its kind is not installed.
    """
    from inf_llm.generation import read_document

    return _announced(read_document(file), file)


def open_piped() -> DocumentText:
    """What is piped into standard input; an empty text where nothing is. Raises the same."""
    from inf_llm.generation import piped_document

    return _announced(piped_document(), None)


def _announced(document: DocumentText, file: Path | None) -> DocumentText:
    if document.origin:
        say(f"{file or 'standard input'}: {document.origin}")
    return document
