"""Input texts of commands, and a line that names the format of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inf_llm.cli.failures import say

if TYPE_CHECKING:
    from inf_llm.formats import DocumentText


def open_document(file: Path | None) -> DocumentText:
    """Read the text of a file, with its places; None or "-" is standard input.

    Raises:
        TextError: no text can be read from the file.
        MissingExtraError: the package that reads files of its kind is not installed.
    """
    from inf_llm.generation import read_document

    return _announced(read_document(file), file)


def open_piped() -> DocumentText:
    """Read a text piped into standard input; empty without one. Errors as of `open_document`."""
    from inf_llm.generation import piped_document

    return _announced(piped_document(), None)


def _announced(document: DocumentText, file: Path | None) -> DocumentText:
    if document.origin:
        say(f"{file or 'standard input'}: {document.origin}")
    return document
