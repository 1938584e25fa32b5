"""Data from homes that are stand-ins here: revisions, digests, and what is said where it fails."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark import download
from benchmark.download import NO_NETWORK, NOTES, SOURCES, FetchError, HubFile, WebFile, fetch

COMMIT = "0123456789abcdef" * 2 + "01234567"


class _Home(http.server.ThreadingHTTPServer):
    """A stand-in for the hub and for any other host: what it has, and what it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.stated: str | None = None
        self.requests: list[str] = []


class _Answer(http.server.BaseHTTPRequestHandler):
    server: _Home

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(self.server.files.get(self.path.split("/")[-1], b""))

    def _answer(self, body: bytes) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        content = self.server.files.get(self.path.split("/")[-1])
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("X-Repo-Commit", COMMIT)
        digest = self.server.stated or hashlib.sha256(content or b"").hexdigest()
        self.send_header("ETag", f'"{digest}"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def home() -> Iterator[_Home]:
    with _Home() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _file(kind: str, home: _Home) -> HubFile | WebFile:
    if kind == "hub":
        return HubFile("a.jsonl", "owner/data", home.url)
    return WebFile("a.jsonl", (f"{home.url}/not/there", f"{home.url}/main/a.jsonl"))


@pytest.mark.parametrize("kind", ["hub", "web"])
def test_a_file_is_fetched_once_and_noted(kind: str, home: _Home, tmp_path: Path) -> None:
    home.files["a.jsonl"] = b"{}\n"
    fetch(tmp_path, _file(kind, home))
    count = len(home.requests)
    fetch(tmp_path, _file(kind, home))
    assert len(home.requests) == count > 0
    note = json.loads((tmp_path / NOTES).read_text())["a.jsonl"]
    assert note["sha256"] == hashlib.sha256(b"{}\n").hexdigest()
    assert note["revision"] == (COMMIT if kind == "hub" else None)
    assert (tmp_path / "a.jsonl").read_bytes() == b"{}\n"


def test_a_file_that_is_lost_is_fetched_at_the_revision_of_the_first_time(
    home: _Home, tmp_path: Path
) -> None:
    home.files["a.jsonl"] = b"{}\n"
    for _ in range(2):
        fetch(tmp_path, _file("hub", home))
        (tmp_path / "a.jsonl").unlink()
    heads = [request for request in home.requests if request.startswith("HEAD")]
    assert "/main/" in heads[0]
    assert f"/{COMMIT}/" in heads[-1]


@pytest.mark.parametrize("kind", ["hub", "web"])
def test_a_damaged_file_is_fetched_again_and_another_version_refused(
    kind: str, home: _Home, tmp_path: Path
) -> None:
    home.files["a.jsonl"] = b"{}\n"
    fetch(tmp_path, _file(kind, home))
    (tmp_path / "a.jsonl").write_bytes(b"{\n")
    fetch(tmp_path, _file(kind, home))
    assert (tmp_path / "a.jsonl").read_bytes() == b"{}\n"
    (tmp_path / "a.jsonl").unlink()
    home.files["a.jsonl"] = b"[]\n"
    with pytest.raises(FetchError, match=rf"another version: SHA-256 .*\({NOTES}\)"):
        fetch(tmp_path, _file(kind, home))
    assert not (tmp_path / "a.jsonl").exists()


def test_what_its_home_does_not_state_is_damaged(home: _Home, tmp_path: Path) -> None:
    home.files["a.jsonl"], home.stated = b"{}\n", "0" * 64
    with pytest.raises(FetchError, match=r"is damaged .* \(its home states\)"):
        fetch(tmp_path, _file("hub", home))
    assert not (tmp_path / "a.jsonl").exists()
    assert not (tmp_path / NOTES).exists()


@pytest.mark.parametrize("kind", ["hub", "web"])
def test_a_file_that_is_not_there(kind: str, home: _Home, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"has no a\.jsonl|above has a\.jsonl"):
        fetch(tmp_path, _file(kind, home))


def test_the_archive_is_unpacked_beside_itself(home: _Home, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("data/qasper.jsonl", "{}\n")
        archive.writestr("data/._qasper.jsonl", "")
    download._unpack(tmp_path / "data.zip")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data.zip", "qasper.jsonl"]


def test_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = WebFile("a", ("http://127.0.0.1:9/a",))
    monkeypatch.setattr(download, "SOURCES", {"ruler": (nowhere,)})
    assert download.main(["ruler", "--data_dir", str(tmp_path)]) == NO_NETWORK
    assert "cannot reach http://127.0.0.1:9: a network is needed" in capsys.readouterr().err


def test_every_benchmark_says_where_its_files_are() -> None:
    for name, files in SOURCES.items():
        assert len({file.name for file in files}) == len(files), name
        assert all(file.home.startswith("http") for file in files)
