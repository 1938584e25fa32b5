"""A text with paragraphs, lists, table rows and headings, built piece by piece."""

from __future__ import annotations

import re

from inf_llm.formats.places import DocumentText, places_of

_SPACE = re.compile(r"[ \t\n\r\f\xa0]+")
_UNSEEN = re.compile("[\xad\u200b\u2060\ufeff]")
"""Invisible characters that allow or forbid a break within a word; they are removed."""
_CELL = " | "


class Blocks:
    """A text under construction. White space counts as in HTML: a run of it is one space.

    Attributes:
        starts: position of the first character, and the text, of each heading.
        length: number of characters so far.
    """

    def __init__(self) -> None:
        self.starts: list[tuple[int, str]] = []
        self._parts: list[str] = []
        self.length = 0
        self._between = ""  # separator before the next words: a space, a bar or line ends
        self._prefix = ""  # mark of a list item, before its first words
        self._heading: int | None = None  # number of parts before the open heading
        self._tables: list[int | None] = []  # number of parts before each table's open cell
        self._kept = False  # whether white space is kept: in preformatted text

    def text(self, text: str) -> None:
        """Add words."""
        text = _UNSEEN.sub("", text)
        if self._kept:
            self._write(text)
            return
        text = _SPACE.sub(" ", text)
        if text.startswith(" "):
            self._gap(" ")
        if words := text.strip(" "):
            self._write(words)
            if text.endswith(" "):
                self._gap(" ")

    def line(self) -> None:
        """End a line within a paragraph."""
        self._gap("\n")

    def block(self, lines: int = 2) -> None:
        """End a paragraph: put `lines` line ends before the next words."""
        self._gap("\n" * lines)

    def item(self, mark: str) -> None:
        """Begin an item of a list; put `mark` before its first words."""
        self._prefix = ""
        self._gap("\n")
        self._prefix = mark

    def end_item(self) -> None:
        """End an item of a list."""
        self._prefix = ""

    def table(self) -> None:
        """Begin a table, which may be in a cell of another table."""
        self.block()
        self._tables.append(None)

    def row(self) -> None:
        """Begin or end a row of a table."""
        self.end_cell()
        self.block(1)

    def cell(self) -> None:
        """Begin a cell of a table."""
        self.end_cell()
        if self._tables:
            self._tables[-1] = len(self._parts)

    def end_cell(self) -> None:
        """End a cell: if it has one line, the next cell follows on that line after a bar."""
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
        """End a heading."""
        if self._heading is not None:
            words = "".join(self._parts[self._heading :])
            if words.strip():
                start = self.length - len(words.lstrip())
                self.starts.append((start, words))
            self._heading = None
        self.block()

    def begin_pre(self) -> None:
        """Begin preformatted text, whose white space is kept."""
        self.block()
        self._kept = True

    def end_pre(self) -> None:
        """End preformatted text."""
        self.block()
        self._kept = False

    def chapter(self, title: str, count: int, start: int) -> None:
        """Name a chapter that does not begin with a heading.

        Args:
            title: title of the chapter; with an empty title the chapter has no name.
            count: number of headings before the chapter.
            start: number of characters before the chapter.
        """
        first = self.starts[count][0] if len(self.starts) > count else self.length
        if first > start + len("\n\n"):
            self.starts.insert(count, (start, title))

    def document(self, origin: str) -> DocumentText:
        """Return the whole text with its places."""
        text = "".join(self._parts)
        return DocumentText(text, places_of(self.starts, len(text)), origin)

    def _gap(self, wanted: str) -> None:
        """Set the separator before the next words to the widest one requested so far.

        Cells and items begin without a separator.
        """
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
