"""The process that reads a document other than plain text: bytes come in, JSON goes out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable

from inf_llm.errors import InfLLMError, TextError, reason
from inf_llm.formats.docx import read_docx
from inf_llm.formats.epub import read_epub
from inf_llm.formats.magic import Kind
from inf_llm.formats.page import read_html
from inf_llm.formats.pdf import read_pdf
from inf_llm.formats.places import DocumentText

READERS: dict[Kind, Callable[[bytes], DocumentText]] = {
    "pdf": read_pdf,
    "epub": read_epub,
    "docx": read_docx,
    "html": read_html,
}
MAX_CHARACTERS = 1 << 28
"""Most characters in the text of a document."""


def main(kind: Kind, memory: int) -> None:
    """Read a document from standard input; write it, or the error, to standard output.

    Args:
        kind: kind of the document.
        memory: most bytes that the process may use, besides those for the document's own bytes.
    """
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keeps what a library prints out of the answer
    data = sys.stdin.buffer.read()
    _limit(memory + 2 * len(data))
    with out:
        out.write(json.dumps(answer(kind, data)).encode())


def answer(kind: Kind, data: bytes) -> dict[str, object]:
    """Return the document as a dict, or a dict with the error."""
    try:
        document = READERS[kind](data)
        _check(document)
        return dataclasses.asdict(document)
    except InfLLMError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "takes more memory to unpack than is allowed"}
    except Exception as error:  # any failure of a library is due to the file
        return {"error": f"is damaged ({reason(error)})"}


def _check(document: DocumentText) -> None:
    if not document.text.strip():
        raise TextError("has no text in it")
    if len(document.text) > MAX_CHARACTERS:
        raise TextError(
            f"has {len(document.text):,} characters of text, and at most {MAX_CHARACTERS:,} are "
            "read: divide it"
        )


def _limit(memory: int) -> None:
    """Limit this process to `memory` bytes of address space, on systems that support it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
