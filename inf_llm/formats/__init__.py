"""Documents of users: the kind of a file, recognized by its content, and the text in it.

Plain text is decoded in the calling process. Every other kind is read in a separate process with
limited memory and time, because such files may come from untrusted sources.
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
