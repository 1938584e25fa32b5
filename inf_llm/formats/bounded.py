"""Documents read in a separate process, which is all that a broken or hostile file can crash."""

from __future__ import annotations

import json
import subprocess
import sys

from inf_llm.errors import TextError
from inf_llm.formats.magic import Kind
from inf_llm.formats.places import DocumentText, Place
from inf_llm.optional import need
from inf_llm.units import size

SECONDS = 120.0
"""Most seconds that reading a document may take."""
MEMORY = 2 << 30
"""Most bytes of memory for reading a document, besides the memory for its own bytes."""

_PACKAGES = {"pdf": ("pypdfium2", "a PDF document"), "docx": ("mammoth", "a Word document")}
_CODE = "import sys; sys.path[:] = {}; from inf_llm.formats.worker import main; main({!r}, {})"


def extracted(kind: Kind, data: bytes, name: str) -> DocumentText:
    """Return the text of a document.

    Args:
        kind: kind of the document.
        data: bytes of the document.
        name: name of the document in error messages.

    Raises:
        TextError: the document is encrypted, damaged, too large or too slow to read, or has no
            text.
        MissingExtraError: the package that reads this kind is not installed.
    """
    if kind in _PACKAGES:
        package, what = _PACKAGES[kind]
        need(package, f"{name}: {what}", "documents")
    code = _CODE.format(sys.path, kind, MEMORY)
    command = [sys.executable, "-I", "-c", code]
    try:
        run = subprocess.run(
            command, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise TextError(
            f"{name}: takes longer than {SECONDS:g} s to read: make a text of it first"
        ) from None
    if run.returncode:
        raise TextError(
            f"{name}: is damaged, or takes more than {size(MEMORY)} of memory to read: the process "
            f"that read it ended with code {run.returncode}"
        )
    return _document(json.loads(run.stdout), name)


def _document(data: dict[str, object], name: str) -> DocumentText:
    if "error" in data:
        raise TextError(f"{name}: {data['error']}")
    places = tuple(Place(**place) for place in data["places"])  # type: ignore[attr-defined]
    return DocumentText(str(data["text"]), places, str(data["origin"]))
