"""Download the data of the benchmarks from their official sources.

Without a name: longbench and infinitebench. A file that is present and intact is not downloaded
again. SOURCES.json beside the files records the source, revision and SHA-256 of each file. A later
run downloads that revision and checks the SHA-256. To get a newer version, delete its entry there.
Exit codes: 0 done, 1 a file is damaged or gone, 2 wrong arguments, 3 no network.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmark.tasks.base import file_digest
from benchmark.tasks.infinitebench import MAX_NEW_TOKENS
from inf_llm.atomic import write_atomically
from inf_llm.errors import InfLLMError, reason

NOTES = "SOURCES.json"
_DATA = Path(__file__).parent / "data"
_HUB = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
_GITHUB = os.environ.get("RAW_ENDPOINT", "https://raw.githubusercontent.com")
_SECONDS = 30
GONE, NO_NETWORK = 1, 3


class FetchError(InfLLMError, RuntimeError):
    """A file cannot be downloaded; `code` is the exit code."""

    def __init__(self, message: str, code: int = GONE) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class HubFile:
    """A file of a data set on the Hugging Face hub."""

    name: str
    repo: str
    home: str = _HUB

    def fetch(self, folder: Path, revision: str | None) -> dict[str, str | None]:
        """Download the file into a folder; return its source, commit and stated SHA-256.

        Raises:
            FetchError: the file cannot be downloaded.
        """
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

        at: Any = {"repo_type": "dataset", "endpoint": self.home}
        url = hf_hub_url(self.repo, self.name, revision=revision, **at)
        print(f"  {self.name} <- {url}", flush=True)
        try:
            stated = get_hf_file_metadata(url, endpoint=self.home)
            commit = stated.commit_hash
            hf_hub_download(self.repo, self.name, revision=commit, local_dir=folder, **at)
        except Exception as error:  # the hub library raises many types of errors
            raise FetchError(f"{self.repo} has no {self.name}: {reason(error)}") from error
        large = stated.etag is not None and len(stated.etag) == 64
        sha256 = stated.etag if large else None
        return {"from": self.repo, "revision": commit, "sha256": sha256}


@dataclass(frozen=True)
class WebFile:
    """A file on the web, with several addresses that are tried in order."""

    name: str
    urls: tuple[str, ...]

    @property
    def home(self) -> str:
        """The first address, which names the host to reach."""
        return self.urls[0]

    def fetch(self, folder: Path, revision: str | None) -> dict[str, str | None]:
        """Do the same as `HubFile.fetch`, without a revision and a stated SHA-256.

        Raises:
            FetchError: no address has the file.
        """
        for url in self.urls:
            print(f"  {self.name} <- {url}", flush=True)
            try:
                self._copy(url, folder)
            except OSError as error:
                print(f"  {reason(error)}", file=sys.stderr)
                continue
            return {"from": url, "revision": None, "sha256": None}
        raise FetchError(f"none of the addresses above has {self.name}")

    def _copy(self, url: str, folder: Path) -> None:
        part = folder / f"{self.name}.part"
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer, part.open("wb") as file:
            shutil.copyfileobj(answer, file)
            size, expected = file.tell(), int(answer.headers.get("Content-Length", file.tell()))
        if size != expected:
            raise OSError(f"{size:,} of {expected:,} bytes came")
        part.replace(folder / self.name)


File = HubFile | WebFile


def _github(repo: str, *paths: str) -> WebFile:
    """Return a file at one of the paths of a repository: commit or branch, folders, name."""
    urls = tuple(f"{_GITHUB}/{repo}/{path}" for path in paths)
    return WebFile(PurePosixPath(paths[0]).name, urls)


def _longeval(lines: int) -> WebFile:
    path = f"longeval/evaluation/lines/testcases/{lines}_lines.jsonl"
    return _github("DachengLi1/LongChat", f"longeval/{path}", f"main/{path}")


_INFLLM = "e247ad957d8903befff9cdca3049969a305fb8e9/benchmark/config/dataset2prompt.json"
_SQUAD = "https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v2.0.json"
_HOTPOTQA = "http://curtis.ml.cmu.edu/datasets/hotpot/hotpot_dev_distractor_v1.json"

SOURCES: Mapping[str, tuple[File, ...]] = {
    "longbench": (
        *(
            _github("THUDM/LongBench", f"main/LongBench/config/{name}", f"main/config/{name}")
            for name in ("dataset2prompt.json", "dataset2maxlen.json")
        ),
        HubFile("data.zip", "THUDM/LongBench"),
    ),
    "infinitebench": (
        _github("OpenBMB/InfiniteBench", "main/src/prompt.py"),
        WebFile("infllm_prompts.json", _github("thunlp/InfLLM", _INFLLM).urls),
        *(HubFile(f"{task}.jsonl", "xinrongzhang2022/InfiniteBench") for task in MAX_NEW_TOKENS),
    ),
    "longeval": tuple(_longeval(lines) for lines in (200, 300, 400, 500, 600, 680)),
    "ruler": (
        *(
            _github("NVIDIA/RULER", f"main/scripts/data/synthetic/{name}")
            for name in ("constants.py", "niah.py")
        ),
        WebFile("squad.json", (_SQUAD,)),
        WebFile("hotpotqa.json", (_HOTPOTQA,)),
    ),
}


def fetch(folder: Path, file: File) -> None:
    """Ensure that a folder has a file, intact and with the same SHA-256 as at its first download.

    Raises:
        FetchError: no address has the file, or the SHA-256 differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file.name
    with FileLock(folder / ".lock"):
        notes = _read_notes(folder / NOTES)
        known = notes.get(file.name, {})
        if path.is_file():
            if file_digest(path) == known.get("sha256"):
                print(f"  {file.name} is there")
                return
            path.unlink()
        note = file.fetch(folder, known.get("revision"))
        digest = file_digest(path)
        for whose, wanted in (("its home states", note["sha256"]), (NOTES, known.get("sha256"))):
            if wanted not in (None, digest):
                path.unlink()
                raise FetchError(
                    f"{file.name} is damaged or another version: SHA-256 {digest}, where "
                    f"{wanted} is expected ({whose}). Run this again, or delete its entry in "
                    f"{folder / NOTES} to take what is there now"
                )
        notes[file.name] = {**note, "sha256": digest}
        write_atomically(folder / NOTES, (json.dumps(notes, indent=2) + "\n").encode())


def _read_notes(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes())) if path.exists() else {}
    except (ValueError, TypeError) as error:
        raise FetchError(f"{path} is not JSON ({reason(error)}): delete it") from error


def _unpack(archive: Path) -> None:
    """Unpack the data files of an archive beside the archive, without its folders."""
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            bare = PurePosixPath(name).name
            if bare.endswith(".jsonl") and not bare.startswith("."):
                (archive.parent / bare).write_bytes(opened.read(name))


def _reach(url: str, data_dir: Path) -> None:
    """Check that a host replies; any HTTP status is accepted.

    Raises:
        FetchError: the host does not reply.
    """
    host = "/".join(url.split("/")[:3])
    try:
        urllib.request.urlopen(urllib.request.Request(host, method="HEAD"), timeout=_SECONDS)
    except urllib.error.HTTPError:
        pass
    except OSError as error:
        raise FetchError(
            f"cannot reach {host}: a network is needed. Copy the files into {data_dir} by hand "
            f"from a machine that has one; the sources are listed in {Path(__file__).name}",
            NO_NETWORK,
        ) from error


def _all(names: Sequence[str], data_dir: Path) -> None:
    for name in names:
        print(name)
        for home in dict.fromkeys(file.home for file in SOURCES[name]):
            _reach(home, data_dir)
        for file in SOURCES[name]:
            fetch(data_dir / name, file)
            if file.name.endswith(".zip"):
                _unpack(data_dir / name / file.name)
    print(f"done: {data_dir}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (see the module)."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("download", description=__doc__, formatter_class=form)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SOURCES))
    parser.add_argument("--data_dir", type=Path, default=_DATA, metavar="D")
    args = parser.parse_args(arguments)
    for name in args.names:
        if name not in SOURCES:
            parser.error(f"'{name}' is not known; accepted: {', '.join(SOURCES)}")
    try:
        _all(args.names or ("longbench", "infinitebench"), args.data_dir)
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        where = error.filename or args.data_dir
        print(f"error: {where}: {error.strerror or error}", file=sys.stderr)
        return GONE
    except KeyboardInterrupt:
        print("stopped: what is whole is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
