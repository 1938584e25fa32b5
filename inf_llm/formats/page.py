"""Text and headings of an HTML page. Nothing that the page refers to is fetched."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

from inf_llm.formats.blocks import Blocks
from inf_llm.formats.places import DocumentText

_PARAGRAPHS = re.compile(
    "address|article|aside|blockquote|body|center|details|dialog|dl|fieldset|figcaption|figure|"
    "footer|form|header|hr|main|menu|nav|ol|p|section|summary|ul"
)
_LINES = re.compile("button|caption|d[dt]|div|legend|noscript|option|select|svg|template|textarea")
_HEADINGS = [f"h{level}" for level in range(1, 7)]
_CELLS = "td", "th"
_LISTS = "ol", "ul", "menu"
_MUTE = "script", "style", "title"


def read_html(data: bytes) -> DocumentText:
    """Return the text of a page in UTF-8."""
    blocks = Blocks()
    Page(blocks).read(data.decode())
    return blocks.document("a page in HTML")


class Page(HTMLParser):
    """Adds the text of an HTML page to `blocks`.

    Attributes:
        title: title of the page; not part of the text.
    """

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self.title = ""
        self._blocks = blocks
        self._mute = ""  # the open element whose content is not text
        self._lists: list[int | None] = []  # last number of each open list; None: bullets
        self._begins: dict[str, Callable[[], None]] = {
            **dict.fromkeys(_HEADINGS, blocks.heading),
            **dict.fromkeys(_CELLS, blocks.cell),
            "table": blocks.table,
            "tr": blocks.row,
            "li": self._item,
            "br": blocks.line,
            "pre": blocks.begin_pre,
        }
        self._ends: dict[str, Callable[[], None]] = {
            **dict.fromkeys(_HEADINGS, blocks.end_heading),
            **dict.fromkeys(_CELLS, blocks.end_cell),
            **dict.fromkeys(_LISTS, self._end_list),
            "table": blocks.end_table,
            "tr": blocks.row,
            "li": blocks.end_item,
            "pre": blocks.end_pre,
        }

    def read(self, text: str) -> None:
        """Add a whole page."""
        self._blocks.block()
        self.feed(text)
        self.close()
        self._blocks.block()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._mute = tag if tag in _MUTE else ""
        self._begins.get(tag, lambda: self._boundary(tag))()
        if tag in _LISTS:
            self._lists.append(0 if tag == "ol" else None)

    def handle_endtag(self, tag: str) -> None:
        self._mute = ""
        self._ends.get(tag, lambda: self._boundary(tag))()

    def handle_data(self, data: str) -> None:
        if self._mute == "title":
            self.title += data
        elif not self._mute:
            self._blocks.text(data)

    def _boundary(self, tag: str) -> None:
        if _PARAGRAPHS.fullmatch(tag):
            self._blocks.block()
        elif _LINES.fullmatch(tag):
            self._blocks.block(1)

    def _item(self) -> None:
        number = self._lists[-1] if self._lists else None
        if number is None:
            self._blocks.item("- ")
        else:
            self._lists[-1] = number + 1
            self._blocks.item(f"{number + 1}. ")

    def _end_list(self) -> None:
        del self._lists[-1:]
        self._blocks.end_item()
        self._blocks.block()
