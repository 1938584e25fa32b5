"""Files as people have them: what they are by their content, and the text in them.

A plain text is decoded here and now. Every other kind is read by a process of its own, with bounded
memory and time, for such files come from anywhere.
"""

from inf_llm.formats.bounded import extracted
from inf_llm.formats.encodings import decoded
from inf_llm.formats.magic import BINARY, TEXTUAL, guess, is_page, kind_of, refuse
from inf_llm.formats.markdown import headings, is_markdown
from inf_llm.formats.places import DocumentText, Place, label_of

__all__ = [
    "BINARY",
    "TEXTUAL",
    "DocumentText",
    "Place",
    "decoded",
    "extracted",
    "guess",
    "headings",
    "is_markdown",
    "is_page",
    "kind_of",
    "label_of",
    "refuse",
]
