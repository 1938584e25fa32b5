"""The Markdown pages: their links lead somewhere, and their commands name what there is."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

import pytest

import inf_llm
from inf_llm.cli import app
from inf_llm.config import load_config
from scripts.absolute_links import absolute
from tests.docs.pages import ROOT, blocks, prose

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "benchmark" / "README.md", ROOT / "benchmark" / "RESULTS.md"]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
LINK = re.compile(r"\]\((?!\w+:)([^)\s]*)\)")
COMMANDS = {command.name or command.callback.__name__ for command in app.registered_commands}
COMMANDS |= {str(group.name) for group in app.registered_groups}


def anchors(page: Path) -> set[str]:
    """What a link may name behind `#`, as the usual renderers make it of headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def _commands(page: Path) -> list[list[str]]:
    """The words of each shell command in a page, continued lines joined."""
    found = []
    for block in blocks(page):
        if block.language in ("bash", "sh", "shell", ""):
            for line in block.code.replace("\\\n", " ").splitlines():
                found += [part.split() for part in line.partition("#")[0].split("|")]
    return [words for words in found if words]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_name_what_there_is(page: Path) -> None:
    for words in _commands(page):
        if words[0] == "inf-llm":
            assert words[1] in COMMANDS or words[1].startswith("-"), words
        if words[0] in ("bash", "python") and not words[1].startswith("-"):
            assert (ROOT / words[1]).exists(), words
        for option, value in pairwise(words):
            if option in ("--config", "-c", "--config_path"):
                assert (ROOT / value).exists() or not value.endswith(".yaml"), words


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_settings_in_commands_are_settings(page: Path) -> None:
    for words in _commands(page):
        pairs = pairwise(words)
        files = [v for option, v in pairs if option in ("--config", "-c") and v.endswith(".yaml")]
        settings = [word for word in words if re.match(r"'?(model\.)?[a-z_]+=", word)]
        if words[0] == "inf-llm" and files and settings:
            load_config(ROOT / files[0], shlex.split(" ".join(settings)))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_code_uses_what_there_is(page: Path) -> None:
    for block in blocks(page):
        for node in ast.walk(ast.parse(block.code)) if block.language == "python" else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("inf_llm"):
                module = importlib.import_module(node.module)
                assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "inf_llm":
                assert hasattr(inf_llm, node.attr), node.attr


def test_rules_stand_where_the_page_says() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = page.partition("### Where a rule stands")[2].partition("\n## ")[0].splitlines()[4:]
    for row in filter(None, rows):
        places = re.findall(r"`(\w+/\w+)\.py` ((?:`[\w.]+`(?:, )?)+)", row)
        assert places, row
        for file, names in places:
            module = importlib.import_module("inf_llm." + file.replace("/", "."))
            assert all(attrgetter(name)(module) for name in re.findall(r"[\w.]+", names))


def test_absolute_links() -> None:
    base = "https://example.org/o/n"
    text = "[a](docs/a.md) ![b](docs/b.png) [c](https://c.org) [d](#d) `[e](e.md)`\n"
    text += "```\n[f](f.md)\n```\n"
    wanted = f"[a]({base}/blob/v1/docs/a.md) ![b]({base}/raw/v1/docs/b.png) [c](https://c.org) "
    wanted += "[d](#d) `[e](e.md)`\n```\n[f](f.md)\n```\n"
    assert absolute(text, base, "v1") == wanted
    readme = absolute((ROOT / "README.md").read_text(encoding="utf-8"), base, "v1")
    assert not [target for target in LINK.findall(readme) if not target.startswith("#")]


def test_pictures_are_small() -> None:
    for picture in (ROOT / "docs").glob("*.png"):
        assert picture.stat().st_size < 200_000, picture
