"""Put a needle into the middle of a copy of a document, and find its page or heading.

The page or heading is found in the source of the document, independently of the package's readers.
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
    """A copy of a document with a needle.

    Attributes:
        data: the bytes of the copy.
        label: label of the needle's page or heading; empty if there is none.
    """

    data: bytes
    label: str = ""


def plant(kind: str, name: str, data: bytes, needle: str) -> Planted:
    """Put a needle into the middle of a copy of a file.

    Args:
        kind: "pdf", "epub", "docx", "html", or "text".
        name: name of the file.
        data: bytes of the file.
        needle: ASCII words.

    Raises:
        InfLLMError: no needle can be put into this file.
    """
    try:
        return _PLANTERS[kind](name, data, needle)
    except Exception as error:  # libraries raise many types of errors for malformed files
        raise InfLLMError(f"{name}: no needle can be put in ({reason(error)})") from None


def _pdf(name: str, data: bytes, needle: str) -> Planted:
    """Insert the needle as a separate page in the middle."""
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
    """Insert the needle as a separate paragraph; only Markdown files have headings."""
    text, encoding = decoded(name, data)
    at = text.find("\n", len(text) // 2) + 1 or len(text)
    copy = f"{text[:at]}\n{needle}\n\n{text[at:]}"
    headings = _MARKDOWN.findall(text[:at]) if name.endswith((".md", ".markdown")) else []
    return Planted(copy.encode(encoding or "utf-8"), headings[-1] if headings else "")


def _epub(name: str, data: bytes, needle: str) -> Planted:
    """Insert the needle as a paragraph of the middle part.

    The label is the last heading before the needle in that part, or else the last heading or title
    of the parts up to and including the middle one.
    """
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
    """Return the headings of a part of a book, or its title if it has no headings."""
    page = _blank(_MUTE, page)
    return _words(_HEADING, page) or _words(_TITLE, page)


def _parts(book: zipfile.ZipFile) -> Iterator[str]:
    """Yield the paths of a book's pages in reading order; skip pages that the archive lacks."""
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
    """Insert the needle as a separate paragraph outside of text boxes."""
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
            "".join(html.unescape(text) or " " for text, _ in _WORD.findall(paragraph[0]))
            for paragraph in upto
            if (style := _WORD_STYLE.search(paragraph[0])) and style[1] in styles
        ]
        copy = f"{xml[:at]}<w:p><w:r><w:t>{needle}</w:t></w:r></w:p>{xml[at:]}"
        named = [label for label in labels if label.strip()]
        return Planted(_with(file, main, copy.encode()), named[-1] if named else "")


def _heading_styles(file: zipfile.ZipFile) -> set[str]:
    """Return the ids of heading styles; Word's default ids if the file defines no styles."""
    if "word/styles.xml" not in file.namelist():
        return {"Title", *(f"Heading{level}" for level in range(1, 7))}
    xml = file.read("word/styles.xml").decode("utf-8-sig")
    styles = re.findall(r'<w:style [^>]*?w:styleId="([^"]*)".*?<w:name w:val="([^"]*)"', xml, re.S)
    return {key for key, name in styles if re.fullmatch(r"heading [1-6]|title", name.lower())}


def _in_page(page: str, needle: str) -> tuple[str, list[str]]:
    """Return a page with a paragraph in its middle, and the headings before the paragraph."""
    visible = _blank(_MUTE, page)
    ends = [match.end() for match in _ENDS.finditer(visible)]
    at = ends[len(ends) // 2] if ends else visible.lower().find("</body")
    at = at if at >= 0 else len(page)
    return f"{page[:at]}<p>{needle}</p>{page[at:]}", _words(_HEADING, visible[:at])


def _words(element: re.Pattern[str], page: str) -> list[str]:
    """Return the texts of the matching elements, without empty ones."""
    texts = (html.unescape(_TAG.sub("", body)) for _, body in element.findall(page))
    return [words for words in texts if words.strip()]


def _blank(pattern: re.Pattern[str], text: str) -> str:
    """Return the text with matches replaced by spaces, so that all offsets stay valid."""
    return pattern.sub(lambda match: " " * len(match[0]), text)


def _with(archive: zipfile.ZipFile, name: str, content: bytes) -> bytes:
    """Return the bytes of an archive in which one file has another content."""
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as target:
        for entry in archive.infolist():
            target.writestr(entry, content if entry.filename == name else archive.read(entry))
    return copy.getvalue()


_PLANTERS: dict[str, Callable[[str, bytes, str], Planted]] = {
    "pdf": _pdf,
    "epub": _epub,
    "docx": _docx,
    "html": _html,
    "text": _text,
}
