"""EPUB books: chapters in the order of reading, called by heading or title."""

from __future__ import annotations

import pytest

from inf_llm.errors import TextError
from inf_llm.formats.archive import MAX_BYTES
from inf_llm.formats.epub import read_epub
from tests.documents import archive, epub, html

CHAPTERS = [("One", "first words"), ("", "second words"), ("Three", "third words")]


def test_chapters_in_order_with_their_names() -> None:
    document = read_epub(epub(CHAPTERS))
    assert document.text == "One\n\nfirst words\n\nsecond words\n\nThree\n\nthird words"
    assert [place.label for place in document.places] == ["One", "Title 1", "Three"]
    assert (
        document.label(document.text.index("second"), len(document.text)) == "Title 1 \u2013 Three"
    )
    assert document.origin == "an EPUB book of 3 parts"


def test_a_part_that_is_listed_twice_is_read_once() -> None:
    data = epub(CHAPTERS, **{"in/book.opf": OPF.format('<itemref idref="a"/>' * 3)})
    assert read_epub(data).text == "One\n\nfirst words"


OPF = (
    '<package><manifest><item id="a" href="p%200.xhtml#x" media-type="application/xhtml+xml"/>'
    '<item id="b" href="../gone.xhtml" media-type="application/xhtml+xml"/>'
    '<item id="c" href="p%201.xhtml" media-type="image/png"/></manifest><spine>{}</spine></package>'
)


def test_a_part_that_is_missing_is_said() -> None:
    spine = "".join(f'<itemref idref="{name}"/>' for name in "abc")
    document = read_epub(epub(CHAPTERS, **{"in/book.opf": OPF.format(spine)}))
    assert document.origin == "an EPUB book of 2 parts, 1 of them missing"
    assert document.text == "One\n\nfirst words"


def test_older_encodings_of_pages() -> None:
    page = '<?xml version="1.0" encoding="iso-8859-1"?><html><p>voilà</p></html>'
    data = epub(CHAPTERS[:1], **{"in/p 0.xhtml": page.encode("latin-1")})
    assert read_epub(data).text == "voilà"


BOMB = '<!DOCTYPE x [<!ENTITY a "{}">]><package>&a;</package>'


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (epub(CHAPTERS)[:-40], "is cut off or damaged"),
        (archive({"META-INF/container.xml": "<x/>"}), "is damaged:  is not in it"),
        (archive({"a.txt": "a"}), "is damaged: META-INF/container.xml is not in it"),
        (epub(CHAPTERS, **{"META-INF/rights.xml": "<x/>"}), "protected against copying"),
        (epub([("", html([]) + " " * MAX_BYTES)]), "unpacks to 268.4 MB .* at most 268.4 MB"),
    ],
)
def test_what_cannot_be_read_is_said(data: bytes, says: str) -> None:
    with pytest.raises(TextError, match=says):
        read_epub(data)


def test_nothing_outside_is_read() -> None:
    secret = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><package>&a;</package>'
    with pytest.raises(Exception, match="undefined entity"):
        read_epub(epub(CHAPTERS, **{"in/book.opf": secret}))


def test_a_part_that_is_a_picture_is_said() -> None:
    data = epub(CHAPTERS, **{"in/p 1.xhtml": '<html><body><img src="scan.png"/></body></html>'})
    assert read_epub(data).origin == "an EPUB book of 3 parts, 1 of them without text"
