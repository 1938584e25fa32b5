"""Documents of every kind at every command, and their pages in the report of what was recalled."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke
from tests.documents import epub, html, pdf, with_documents

pytestmark = with_documents

PAGES = [f"Page {number} says: the quick brown fox jumps over the dog. " for number in range(12)]
FILES = {
    "book.pdf": (pdf(PAGES), "a PDF of 12 pages"),
    "book.epub": (epub([("", page) for page in PAGES]), "an EPUB book of 12 parts"),
    "book.html": (html([("", page) for page in PAGES]).encode(), "a page in HTML"),
    "book.txt": ("voilà! ".join(PAGES).encode("cp1252"), "text in CP1252"),
}
DOORS = {
    "run": ("run", "-p", "Who?", "-n", 2, "-f"),
    "read": ("read", "--save", "memory", "-f"),
    "ppl": ("ppl", "-f"),
    "chat": ("chat", "--read"),
    "fidelity": ("fidelity", "--length", "64", "--text"),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_scan_is_refused_at_every_door(
    invoke: Invoke, config: Path, door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scan.pdf").write_bytes(pdf(["", ""]))
    done = invoke(*DOORS[door], "scan.pdf", "-c", config)
    assert done.exit_code == 2
    assert "error: scan.pdf: has 2 pages without text, as a scan does" in done.stderr
    assert "loading" not in done.stderr


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("door", ["run", "read", "ppl"])
def test_every_kind_is_read_and_said(
    invoke: Invoke,
    config: Path,
    door: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    data, origin = FILES[name]
    Path(name).write_bytes(data)
    done = invoke(*DOORS[door], name, "-c", config)
    assert done.exit_code == 0, done.stderr
    assert f"{name}: {origin}\n" in done.stderr


def test_a_document_is_piped(invoke: Invoke, config: Path) -> None:
    done = invoke("run", "-p", "Who?", "-n", 2, "-c", config, input=FILES["book.pdf"][0])
    assert done.exit_code == 0, done.stderr
    assert "standard input: a PDF of 12 pages\n" in done.stderr


def _places(report: Path) -> dict[str, str]:
    """What is shown of each passage, and where it was."""
    match = re.search(r"const data = (\{.*?\});\nconst", report.read_text(), re.DOTALL)
    assert match is not None
    passages = json.loads(match[1])["passages"]
    return {passage["texts"][1]: passage["place"] for passage in passages}


def _check_pages(places: dict[str, str]) -> None:
    named = 0
    for text, place in places.items():
        if numbers := [int(number) + 1 for number in re.findall(r"Page (\d+) says", text)]:
            pages = [int(number) for number in re.findall(r"page (\d+)", place)]
            assert pages[0] <= numbers[0] <= numbers[-1] <= pages[-1]
            assert pages[-1] - pages[0] <= len(numbers), (text, place)
            named += 1
    assert named


@pytest.mark.parametrize("memory", [False, True])
def test_the_report_names_pages(invoke: Invoke, config: Path, tmp_path: Path, memory: bool) -> None:
    file, report, folder = tmp_path / "book.pdf", tmp_path / "report.html", tmp_path / "memory"
    file.write_bytes(FILES["book.pdf"][0])
    source = ["-c", config, "-f", file]
    if memory:
        assert invoke("read", *source, "--save", folder).exit_code == 0
        source = ["--memory", folder]
    done = invoke("run", *source, "-p", "Who?", "-n", 4, "--trace", report)
    assert done.exit_code == 0, done.stderr
    _check_pages(_places(report))


def test_the_report_names_pages_of_both_documents(
    invoke: Invoke, config: Path, tmp_path: Path
) -> None:
    file, more, report = tmp_path / "a.pdf", tmp_path / "b.epub", tmp_path / "report.html"
    file.write_bytes(FILES["book.pdf"][0])
    more.write_bytes(epub([(f"Chapter {n}", f"In chapter {n} the dog sleeps.") for n in range(9)]))
    assert invoke("read", "-c", config, "-f", file, "--save", tmp_path / "m").exit_code == 0
    words = "-f", more, "-p", "Who?", "-n", 6, "--trace", report
    done = invoke("run", "--memory", tmp_path / "m", *words)
    assert done.exit_code == 0, done.stderr
    places = _places(report)
    _check_pages({text: place for text, place in places.items() if "says" in text})
    for text, place in places.items():
        for number in re.findall(r"In chapter (\d)", text):
            assert "Chapter" in place, (text, place, number)
