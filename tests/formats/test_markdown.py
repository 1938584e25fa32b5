"""Headings of Markdown, which stays as it is."""

from __future__ import annotations

import pytest

from inf_llm.formats.markdown import headings, is_markdown

TEXT = """preface
# One
text
```sh
# a comment
```
## Two ##
~~~~
# code
~~~
# code still
~~~~
#hash
    # indented code
"""


def test_headings_are_found_and_code_is_none() -> None:
    places = headings(TEXT)
    assert [place.label for place in places] == ["One", "Two"]
    assert TEXT[places[0].start :].startswith("# One\n")
    assert TEXT[places[1].start :].startswith("## Two ##\n")
    assert places[0].end == places[1].start
    assert places[1].end == len(TEXT)


@pytest.mark.parametrize("ends", ["\r\n", "\n"])
def test_line_ends_do_not_move_them(ends: str) -> None:
    text = f"a{ends}# One{ends}b"
    (place,) = headings(text)
    assert (place.label, text[place.start :]) == ("One", f"# One{ends}b")


def test_its_name_says_what_is_markdown() -> None:
    assert is_markdown("a/README.MD")
    assert not is_markdown("script.sh")
