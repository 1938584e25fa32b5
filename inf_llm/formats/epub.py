"""EPUB books: their chapters, in reading order."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree import ElementTree

from inf_llm.errors import TextError
from inf_llm.formats.archive import Archive
from inf_llm.formats.blocks import Blocks
from inf_llm.formats.encodings import decoded
from inf_llm.formats.page import Page
from inf_llm.formats.places import DocumentText

_CONTAINER = "META-INF/container.xml"
_LOCKS = ("META-INF/rights.xml", "META-INF/license.lcpl", "META-INF/sinf.xml")
_PAGES = ("application/xhtml+xml", "text/html")


def read_epub(data: bytes) -> DocumentText:
    """Return the text of a book; a chapter without headings is named by its title.

    Raises:
        TextError: the book is damaged, encrypted or too large.
    """
    archive = Archive(data)
    if any(lock in archive.names for lock in _LOCKS):
        raise TextError("is protected against copying, so that its text cannot be read")
    chapters = _chapters(archive)
    there = [name for name in chapters if name in archive.names]
    archive.check_size(there)
    blocks, empty = Blocks(), 0
    for name in there:
        count, start = len(blocks.starts), blocks.length
        page = Page(blocks)
        page.read(decoded(name, archive.read(name))[0])
        blocks.chapter(page.title, count, start)
        empty += blocks.length == start
    origin = f"an EPUB book of {len(chapters)} parts"
    origin += f", {len(chapters) - len(there)} of them missing" if there != chapters else ""
    origin += f", {empty} of them without text" if empty else ""
    return blocks.document(origin)


def _chapters(archive: Archive) -> list[str]:
    """Return the names of the pages of a book in reading order, each once."""
    package = next(_named(archive.read(_CONTAINER), "rootfile"), {}).get("full-path", "")
    content = archive.read(package)
    pages = {
        item.get("id"): item.get("href", "")
        for item in _named(content, "item")
        if item.get("media-type") in _PAGES
    }
    spine = (item.get("idref") for item in _named(content, "itemref"))
    folder = posixpath.dirname(package)
    return list(dict.fromkeys(_path(folder, pages[page]) for page in spine if page in pages))


def _named(xml: bytes, tag: str) -> Iterator[dict[str, str]]:
    """Yield the attributes of all elements with a tag, in any namespace."""
    for element in ElementTree.fromstring(xml).iter():
        if str(element.tag).rpartition("}")[2] == tag:
            yield element.attrib


def _path(folder: str, href: str) -> str:
    return posixpath.normpath(posixpath.join(folder, unquote(href.partition("#")[0])))
