"""The chat page: what is served, and what a browser lets it do."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from inf_llm.serve.page import FOLDER, Page
from tests.serve.conftest import Server
from tests.serve.inprocess import local

VENDOR = FOLDER / "vendor"
OWN = sorted(file for file in FOLDER.iterdir() if file.suffix in (".html", ".css", ".js", ".svg"))
START = (FOLDER / "index.html").read_text(encoding="utf-8")


def test_the_page_may_load_and_reach_this_server_only(server: Server) -> None:
    reply = httpx.get(server.address)
    rules = dict(
        rule.split(" ", 1) for rule in reply.headers["content-security-policy"].split("; ")
    )
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("require-trusted-types-for") == "'script'"
    assert rules.pop("trusted-types") == "dompurify"
    assert set(rules.values()) == {"'self'", "'none'"}
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("file", OWN, ids=lambda file: file.name)
def test_nothing_is_loaded_from_elsewhere(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
    assert not re.search(r"https?://|style=|<style|\son\w+=", text)


def test_every_file_of_the_page_is_there(server: Server) -> None:
    """With its type, for as long as browsers like; each script's imports are among them."""
    start = httpx.get(server.address).text
    wanted, seen = re.findall(r'(?:src|href)="(page/[^"]+)"', start), set()
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    while wanted:
        address = wanted.pop()
        reply = httpx.get(f"{server.address}/{address}")
        assert reply.status_code == 200, address
        assert reply.headers["content-type"].split(";")[0] == kinds[address.rpartition(".")[2]]
        assert "immutable" in reply.headers["cache-control"]
        seen.add(address)
        imported = re.findall(r'^(?:import|export) .*"\./([\w./-]+)";', reply.text, re.MULTILINE)
        found = {f"{address.rpartition('/')[0]}/{name}" for name in imported}
        wanted += found - seen - {*wanted}
    names = {address.split("/", 2)[2] for address in seen}
    assert {file.name for file in OWN} - {"index.html"} <= names
    assert {"vendor/marked.esm.js", "vendor/purify.min.js"} <= names


def test_the_address_of_a_file_changes_with_any_of_them(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("page/VERSION/a.js")
    (tmp_path / "a.js").write_text("1")
    before = Page(tmp_path).version
    (tmp_path / "b.js").write_text("2")
    assert Page(tmp_path).version != before
    (tmp_path / "README.md").write_text("not a part of the page")
    (tmp_path / "b.js").unlink()
    assert Page(tmp_path).version == before


def test_other_names_and_versions_are_not_served() -> None:
    with local(api_key="right") as server:
        version = server.app.page.version
        assert server.request("GET", f"/page/{version}/main.js").status_code == 200
        for path in (
            *(f"/page/{version}/{name}" for name in ("index.html", "none.js", "../page.py", "")),
            *(f"/page/{version}/vendor/README.md", "/page/old/main.js", "/page/"),
            f"/page/{version}/%2e%2e/%2e%2e/serve/page.py",
        ):
            assert server.request("GET", path).status_code == 404, path


def test_vendored_files_have_their_version_source_and_licence() -> None:
    readme = (VENDOR / "README.md").read_text(encoding="utf-8")
    for file in VENDOR.glob("*.js"):
        head = file.read_text(encoding="utf-8")[:300]
        version = re.search(r"\d+\.\d+\.\d+", head)
        assert version is not None
        row = next(line for line in readme.splitlines() if f"`{file.name}`" in line)
        licence = re.search(r"`(\S+\.LICENSE)`", row)
        assert version[0] in row
        assert licence is not None
        assert len((VENDOR / licence[1]).read_text(encoding="utf-8")) > 500


def test_ids_that_the_scripts_name_are_in_the_page() -> None:
    ids = set(re.findall(r'\bid="([\w-]+)"', START))
    for file in OWN:
        named = set(re.findall(r'\$\("([\w-]+)"\)', file.read_text(encoding="utf-8")))
        assert named <= ids, file.name
