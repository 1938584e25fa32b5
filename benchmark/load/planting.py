"""Copies of documents with a needle in their middle, and the page or heading that it stands in.

Where it stands is found in the source of the document, without the package's own readers.
"""

from __future__ import annotations

import ctypes
import html
import io
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote
from xml.etree import ElementTree

from inf_llm.errors import InfLLMError, reason
from inf_llm.formats import decoded
from inf_llm.optional import need

_ENDS = re.compile(r"</(?:p|div|pre|[ou]l|dl|h[1-6]|table)\s*>", re.IGNORECASE)
_HEADING = re.compile(r"<(h[1-6])\b[^>]*>(.*?)</\1\s*>", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<(title)\b[^>]*>(.*?)</\1\s*>", re.IGNORECASE | re.DOTALL)
_MUTE = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_WORD = re.compile(r"<w:t(?: [^>]*)?>([^<]*)</w:t>|<(w:tab|w:br|w:cr)\b")
_WORD_PARAGRAPH = re.compile(r"<w:p[ >].*?</w:p>", re.DOTALL)
_WORD_BOX = re.compile(
    r"<(mc:AlternateContent|w:pict|w:drawing|w:del|w:moveFrom|w:sdt)[ >].*?</\1>", re.DOTALL
)
_WORD_STYLE = re.compile(r'<w:pStyle w:val="([^"]*)"')
_MARKDOWN = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*?)[ \t#]*$", re.MULTILINE)


@dataclass(frozen=True)
class Planted:
    """A copy with a needle.

    Attributes:
        data: its bytes.
        label: of the page or heading that the needle stands in; empty where there is none.
    """

    data: bytes
    label: str = ""


def plant(kind: str, name: str, data: bytes, needle: str) -> Planted:
    """Put a needle into the middle of a copy.

    Args:
        kind: "pdf", "epub", "docx", "html", or "text".
        name: of the file.
        data: its bytes.
        needle: ASCII words.

    Raises:
        InfLLMError: there is no place for it.
    """
    try:
        return _PLANTERS[kind](name, data, needle)
    except Exception as error:  # whatever a library stumbles over, the file is to blame
        raise InfLLMError(f"{name}: no needle can be put in ({reason(error)})") from None


def _pdf(name: str, data: bytes, needle: str) -> Planted:
    """A page of its own in the middle."""
    library = need("pypdfium2", "a PDF document", "documents")
    pdfium = library.raw
    document = library.PdfDocument(data)
    at = len(document) // 2
    page = document.new_page(595, 842, at)
    text = pdfium.FPDFPageObj_NewTextObj(document.raw, b"Helvetica", ctypes.c_float(14))
    wide = (needle + "\0").encode("utf-16-le")
    pdfium.FPDFText_SetText(text, (ctypes.c_ushort * (len(wide) // 2)).from_buffer_copy(wide))
    pdfium.FPDFPageObj_Transform(text, 1, 0, 0, 1, 40, 420)
    pdfium.FPDFPage_InsertObject(page.raw, text)
    page.gen_content()
    page.close()
    copy = io.BytesIO()
    document.save(copy)
    document.close()
    return Planted(copy.getvalue(), f"page {at + 1}")


def _html(name: str, data: bytes, needle: str) -> Planted:
    page, encoding = decoded(name, data)
    copy, headings = _in_page(page, needle)
    return Planted(copy.encode(encoding or "utf-8"), headings[-1] if headings else "")


def _text(name: str, data: bytes, needle: str) -> Planted:
    """A paragraph of its own; headings count in Markdown only."""
    text, encoding = decoded(name, data)
    at = text.find("\n", len(text) // 2) + 1 or len(text)
    copy = f"{text[:at]}\n{needle}\n\n{text[at:]}"
    headings = _MARKDOWN.findall(text[:at]) if name.endswith((".md", ".markdown")) else []
    return Planted(copy.encode(encoding or "utf-8"), headings[-1] if headings else "")


def _epub(name: str, data: bytes, needle: str) -> Planted:
    """A paragraph in the part in the middle. A part that begins without a heading has its title."""
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        parts = list(_parts(book))
        middle = len(parts) // 2
        texts = [decoded(part, book.read(part)) for part in parts[: middle + 1]]
        copy, headings = _in_page(texts[middle][0], needle)
        if not headings:
            headings = [label for text, _ in texts for label in _names(text)]
        new = copy.encode(texts[middle][1] or "utf-8")
        return Planted(_with(book, parts[middle], new), headings[-1] if headings else "")


def _names(page: str) -> list[str]:
    """What a part of a book is called by: its headings, or its title."""
    page = _blank(_MUTE, page)
    return _words(_HEADING, page) or _words(_TITLE, page)


def _parts(book: zipfile.ZipFile) -> Iterator[str]:
    """Pages of a book in the order of reading, as far as they are there."""
    container = ElementTree.fromstring(book.read("META-INF/container.xml"))
    package = next(e.attrib["full-path"] for e in container.iter() if "full-path" in e.attrib)
    root = ElementTree.fromstring(book.read(package))
    paths = {e.get("id"): e.attrib["href"] for e in root.findall(".//{*}item")}
    for element in root.findall(".//{*}itemref"):
        path = unquote(paths.get(element.get("idref"), "").partition("#")[0])
        path = posixpath.normpath(posixpath.join(posixpath.dirname(package), path))
        if path in book.namelist() and path.endswith(("html", "htm", "xml")):
            yield path


def _docx(name: str, data: bytes, needle: str) -> Planted:
    """A paragraph of its own, outside of boxes."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        main = next(n for n in file.namelist() if re.fullmatch(r"word/document\d*\.xml", n))
        xml = file.read(main).decode("utf-8-sig")
        paragraphs = list(_WORD_PARAGRAPH.finditer(_blank(_WORD_BOX, xml)))
        if not paragraphs:
            raise InfLLMError("it has no paragraph")
        upto = paragraphs[: len(paragraphs) // 2 + 1]
        at = upto[-1].end()
        styles = _heading_styles(file)
        labels = [
            "".join(html.unescape(said) or " " for said, _ in _WORD.findall(paragraph[0]))
            for paragraph in upto
            if (style := _WORD_STYLE.search(paragraph[0])) and style[1] in styles
        ]
        copy = f"{xml[:at]}<w:p><w:r><w:t>{needle}</w:t></w:r></w:p>{xml[at:]}"
        named = [label for label in labels if label.strip()]
        return Planted(_with(file, main, copy.encode()), named[-1] if named else "")


def _heading_styles(file: zipfile.ZipFile) -> set[str]:
    """Ids of the styles of headings; those of Word itself where the file does not say."""
    if "word/styles.xml" not in file.namelist():
        return {"Title", *(f"Heading{level}" for level in range(1, 7))}
    xml = file.read("word/styles.xml").decode("utf-8-sig")
    styles = re.findall(r'<w:style [^>]*?w:styleId="([^"]*)".*?<w:name w:val="([^"]*)"', xml, re.S)
    return {key for key, name in styles if re.fullmatch(r"heading [1-6]|title", name.lower())}


def _in_page(page: str, needle: str) -> tuple[str, list[str]]:
    """A page with a paragraph in its middle, and the headings before that."""
    seen = _blank(_MUTE, page)
    ends = [found.end() for found in _ENDS.finditer(seen)]
    at = ends[len(ends) // 2] if ends else seen.lower().find("</body")
    at = at if at >= 0 else len(page)
    return f"{page[:at]}<p>{needle}</p>{page[at:]}", _words(_HEADING, seen[:at])


def _words(element: re.Pattern[str], page: str) -> list[str]:
    """Words of elements that have any."""
    found = (html.unescape(_TAG.sub("", body)) for _, body in element.findall(page))
    return [words for words in found if words.strip()]


def _blank(what: re.Pattern[str], text: str) -> str:
    """The text with spaces for what is not looked at, so that places stay."""
    return what.sub(lambda found: " " * len(found[0]), text)


def _with(archive: zipfile.ZipFile, name: str, content: bytes) -> bytes:
    """An archive with another content of one file."""
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as made:
        for entry in archive.infolist():
            made.writestr(entry, content if entry.filename == name else archive.read(entry))
    return copy.getvalue()


_PLANTERS: dict[str, Callable[[str, bytes, str], Planted]] = {
    "pdf": _pdf,
    "epub": _epub,
    "docx": _docx,
    "html": _html,
    "text": _text,
}
