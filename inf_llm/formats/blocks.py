"""Text with paragraphs, lists and table rows, put together piece by piece, and its headings."""

from __future__ import annotations

import re

from inf_llm.formats.places import DocumentText, places_of

_SPACE = re.compile(r"[ \t\n\r\f\xa0]+")
_UNSEEN = re.compile("[\xad\u200b\u2060\ufeff]")
"""Where a word may be broken, or not: it is one word all the same."""
_CELL = " | "


class Blocks:
    """A text in the making. White space counts as in HTML: a run of it is one space.

    Attributes:
        starts: first character and words of each heading.
        length: characters so far.
    """

    def __init__(self) -> None:
        self.starts: list[tuple[int, str]] = []
        self._parts: list[str] = []
        self.length = 0
        self._between = ""  # what comes before the next words: a space, a bar or line ends
        self._prefix = ""  # of the next words: the mark of their item
        self._heading: int | None = None  # parts before the heading that is open
        self._tables: list[int | None] = []  # parts before the open cell of each open table
        self._kept = False  # white space, within preformatted text

    def text(self, said: str) -> None:
        """Add words."""
        said = _UNSEEN.sub("", said)
        if self._kept:
            self._write(said)
            return
        said = _SPACE.sub(" ", said)
        if said.startswith(" "):
            self._gap(" ")
        if words := said.strip(" "):
            self._write(words)
            if said.endswith(" "):
                self._gap(" ")

    def line(self) -> None:
        """End a line within a paragraph."""
        self._gap("\n")

    def block(self, lines: int = 2) -> None:
        """End a paragraph: `lines` line ends come before the next words."""
        self._gap("\n" * lines)

    def item(self, mark: str) -> None:
        """Begin an item of a list; the mark comes before its first words."""
        self._prefix = ""
        self._gap("\n")
        self._prefix = mark

    def end_item(self) -> None:
        """End it."""
        self._prefix = ""

    def table(self) -> None:
        """Begin a table, in a cell of another one too."""
        self.block()
        self._tables.append(None)

    def row(self) -> None:
        """Begin a row of a table, or end one."""
        self.end_cell()
        self.block(1)

    def cell(self) -> None:
        """Begin a cell."""
        self.end_cell()
        if self._tables:
            self._tables[-1] = len(self._parts)

    def end_cell(self) -> None:
        """End it: what is short stands in one line with the next cell, the rest by itself."""
        begun = self._tables[-1] if self._tables else None
        if begun is not None:
            self._tables[-1] = None
            inside = "".join(self._parts[begun:]).lstrip("\n")
            if inside and "\n" not in inside:
                self._between = _CELL

    def end_table(self) -> None:
        """End a table."""
        self.end_cell()
        del self._tables[-1:]
        self.block()

    def heading(self) -> None:
        """Begin a heading."""
        self.block()
        self._heading = len(self._parts)

    def end_heading(self) -> None:
        """End it."""
        if self._heading is not None:
            words = "".join(self._parts[self._heading :])
            if words.strip():
                start = self.length - len(words.lstrip())
                self.starts.append((start, words))
            self._heading = None
        self.block()

    def begin_pre(self) -> None:
        """Take white space as it is from here on."""
        self.block()
        self._kept = True

    def end_pre(self) -> None:
        """Take it so no more."""
        self.block()
        self._kept = False

    def chapter(self, title: str, count: int, start: int) -> None:
        """Name a chapter that does not begin with a heading.

        Args:
            title: of the chapter; where it is empty the chapter has no name.
            count: headings before it.
            start: characters before it.
        """
        first = self.starts[count][0] if len(self.starts) > count else self.length
        if first > start + len("\n\n"):
            self.starts.insert(count, (start, title))

    def document(self, origin: str) -> DocumentText:
        """All of it."""
        text = "".join(self._parts)
        return DocumentText(text, places_of(self.starts, len(text)), origin)

    def _gap(self, wanted: str) -> None:
        """A gap is as wide as the widest that was asked for; cells and items begin without."""
        if self._prefix or self._tables[-1:] == [len(self._parts)]:
            return
        lines = self._between.count("\n")
        if wanted.count("\n") > lines or not self._between:
            self._between = wanted

    def _write(self, words: str) -> None:
        if self.length and self._between:
            words = self._between + self._prefix + words
        else:
            words = self._prefix + words
        self._between = self._prefix = ""
        self._parts.append(words)
        self.length += len(words)
