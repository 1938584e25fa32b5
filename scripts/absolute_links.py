"""Make the relative links of README.md absolute, for its page on the package index.

    python scripts/absolute_links.py https://example.org/OWNER/NAME v0.1.0 [FILE]

A package index shows the README without the repository. Links to files become BASE/blob/TAG/FILE,
and links to pictures BASE/raw/TAG/FILE. Code is not changed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
_CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)(\[[^\[\]]*\])\((?!\w+:|#|/)([^()\s]+)\)")


def absolute(text: str, base: str, tag: str) -> str:
    """Return a page with absolute links.

    Args:
        text: the page, in Markdown.
        base: address of the repository.
        tag: a tag, branch or commit.
    """

    def link(found: re.Match[str]) -> str:
        picture, shown, path = found.groups()
        return f"{picture}{shown}({base.rstrip('/')}/{'raw' if picture else 'blob'}/{tag}/{path})"

    parts = _CODE.split(text)
    return "".join(
        part if number % 2 else _LINK.sub(link, part) for number, part in enumerate(parts)
    )


def main(arguments: list[str]) -> int:
    """Rewrite the file; return the exit code."""
    if len(arguments) not in (2, 3) or not arguments[0].startswith("https://"):
        print(__doc__, file=sys.stderr)
        return 2
    file = Path(arguments[2]) if len(arguments) == 3 else README
    text = file.read_text(encoding="utf-8")
    file.write_text(absolute(text, *arguments[:2]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
