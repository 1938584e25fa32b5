"""Documents of each kind, made of a few lines: chapters in, bytes out."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Mapping, Sequence

import pytest

PACKAGES = "pypdfium2", "mammoth", "chardet"
with_documents = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, PACKAGES)), reason="the extra documents is not installed"
)
CONTAINER = '<container><rootfiles><rootfile full-path="in/book.opf"/></rootfiles></container>'
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
Chapter = tuple[str, str]


def archive(files: Mapping[str, str | bytes]) -> bytes:
    """A ZIP archive; a file named mimetype is not compressed."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in files.items():
            how = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            made.writestr(name, text, how)
    return data.getvalue()


def html(chapters: Sequence[Chapter], title: str = "") -> str:
    """A page with a heading and a paragraph for each chapter; without a heading where it is ""."""
    parts = [f"<h1>{name}</h1><p>{text}</p>" if name else f"<p>{text}" for name, text in chapters]
    return f"<!DOCTYPE html><html><title>{title}</title><body>{''.join(parts)}</body></html>"


def epub(chapters: Sequence[Chapter], **more: str | bytes) -> bytes:
    """A book with a page for each chapter; `more` are files beside the pages."""
    numbers = range(len(chapters))
    pages = {f"in/p {n}.xhtml": html([chapters[n]], f"Title {n}") for n in numbers}
    items = "".join(
        f'<item id="i{n}" href="p%20{n}.xhtml" media-type="application/xhtml+xml"/>'
        for n in numbers
    )
    spine = "".join(f'<itemref idref="i{n}"/>' for n in numbers)
    book = f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>"
    return archive(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "in/book.opf": book,
            **pages,
            **more,
        }
    )


def docx(chapters: Sequence[Chapter]) -> bytes:
    """A Word document with a heading and a paragraph for each chapter."""
    style = '<w:pPr><w:pStyle w:val="Heading1"/></w:pPr>'
    body = "".join(
        f"<w:p>{style}<w:r><w:t>{name}</w:t></w:r></w:p><w:p><w:r><w:t>{text}</w:t></w:r></w:p>"
        for name, text in chapters
    )
    return docx_of(body)


def docx_of(body: str) -> bytes:
    """A Word document of such XML."""
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    return archive(
        {
            "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types"><Override '
            f'PartName="/word/document.xml" ContentType="{main}"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="r" '
            f'Type="{OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>',
            "word/document.xml": f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body>'
            "</w:document>",
        }
    )


def pdf(pages: Sequence[str]) -> bytes:
    """A PDF with a line of ASCII on each page; an empty one is a picture, as a scan has."""
    scan = b"q 9 0 0 9 0 0 cm BI /W 1 /H 1 /CS /G /BPC 8 ID \x7f EI Q"
    drawn = [f"BT /F 12 Tf 9 99 Td ({text}) Tj ET".encode() if text else scan for text in pages]
    return pdf_of([stream(each) for each in drawn])


def stream(content: bytes, keys: str = "") -> bytes:
    """A PDF stream, or what stands for one."""
    return f"<<{keys}/Length {len(content)}>>stream\n".encode() + content + b"\nendstream"


def pdf_of(streams: Sequence[bytes], trailer: str = "") -> bytes:
    """A PDF with a page for each stream of drawing."""
    count = len(streams)
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(count))
    objects = [b"<</Type/Catalog/Pages 2 0 R>>"]
    objects += [f"<</Type/Pages/Count {count}/Kids[{kids}]>>".encode()]
    objects += [b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    for number, content in enumerate(streams):
        page = f"/Type/Page/Parent 2 0 R/MediaBox[0 0 900 200]/Contents {5 + 2 * number} 0 R"
        objects += [f"<<{page}/Resources<</Font<</F 3 0 R>>>>>>".encode(), content]
    return _assembled(objects, trailer)


def _assembled(objects: Sequence[bytes], trailer: str) -> bytes:
    """The file: objects, and the table of where each begins."""
    data, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    tail = (
        f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<</Size {size}/Root 1 0 R{trailer}>>"
    )
    return data + f"{tail}\nstartxref\n{len(data)}\n%%EOF\n".encode()
