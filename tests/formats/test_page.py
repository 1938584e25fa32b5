"""Pages in HTML: all that is said, in paragraphs, and the headings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.formats.page import read_html
from tests.documents import html

WORDS = (
    st.text("abc xyz", min_size=1).map(str.strip).filter(bool).map(lambda s: " ".join(s.split()))
)


def text_of(page: str) -> str:
    return read_html(page.encode()).text


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (
            "<div>one<br>two<br/>three</div><div>four</div>loose <i>te</i>xt",
            "one\ntwo\nthree\nfour\nloose text",
        ),
        ("<p>one<p>two<blockquote>three<p>four", "one\n\ntwo\n\nthree\n\nfour"),
        ("<ul><li>a<li><p>b</ul><ol><li>c</li><li></li><li>d</ol>e", "- a\n- b\n\n1. c\n3. d\n\ne"),
        ("<table><tr><th>a<th>b<tr><td><p>1</p><td>2</table>c", "a | b\n1 | 2\n\nc"),
        ("<table><tr><td><p>a<p>b</td><td>c</table>", "a\n\nb\n\nc".replace("b\n\nc", "bc")),
        ("<table><tr><td><table><tr><td>a<td>b</table><td>c</table>", "a | b | c"),
        ("a<pre>\n  b\n   c</pre>d", "a\n\n  b\n   c\n\nd".replace("\n\n  b", "\n\n\n  b")),
        ("a&nbsp;b &lt;c&gt; &amp;amp; &#x41;\n\t d", "a b <c> &amp; A d"),
        ("a<script>if (a<b) x='</p>'</script><style>p{}</style> b<!-- c -->", "a b"),
        ("<script/><title/>a", "a"),
        (
            "<main>a</main><nav>b</nav><p hidden>c</p><details><summary>d</summary>e</details>",
            "a\n\nb\n\nc\n\nd\n\ne",
        ),
        ("<div>" * 5000 + "deep", "deep"),
        ("<svg><text>a</text></svg><textarea>b</textarea><button>c</button>", "a\nb\nc"),
        ("</td></tr></table></ol></h1></li>a", "a"),
    ],
)
def test_what_a_page_says(page: str, text: str) -> None:
    assert text_of(f"<html><body>{page}</body></html>") == text


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6))
def test_places_hold_their_heading_and_what_follows(chapters: list[tuple[str, str]]) -> None:
    document = read_html(html(chapters).encode())
    assert [place.label for place in document.places] == [name for name, _ in chapters]
    for place, (name, text) in zip(document.places, chapters, strict=True):
        assert document.text[place.start : place.end].split("\n\n")[:2] == [name, text]
    assert document.places[-1].end == len(document.text)


@given(st.text(st.sampled_from("<>/ abp=\"'!-&;\n") | st.characters(codec="utf-8"), max_size=80))
def test_anything_is_read(page: str) -> None:
    read_html(page.encode())


NESTED = "table", "tr", "td", "th", "p", "li", "ol", "ul", "h1", "pre", "div", "b"


@given(st.lists(st.sampled_from(NESTED), max_size=12))
def test_no_word_is_lost_or_glued_however_elements_are_nested(tags: list[str]) -> None:
    page = "".join(f"<{tag}> w{number} " for number, tag in enumerate(tags))
    words = [word for word in text_of(page + "<p>end").split() if word[0] in "we"]
    assert words == [*(f"w{number}" for number in range(len(tags))), "end"]


@pytest.mark.parametrize("unseen", ["&shy;", "\u200b", "&#x2060;", "\ufeff"])
def test_a_word_that_may_be_broken_is_one_word(unseen: str) -> None:
    page = f"<p>infor{unseen}mation</p><h1>head{unseen}ing</h1><pre>pre{unseen}pare</pre>"
    document = read_html(page.encode())
    assert document.text == "information\n\nheading\n\nprepare"
    assert [place.label for place in document.places] == ["heading"]
