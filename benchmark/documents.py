"""Test real documents: does a server read each file, find a needle in it and cite its place?

    python benchmark/documents.py FOLDER --config demo

For each file in the folder, the program puts a needle with a random key into the middle of a copy,
uploads the copy to a server process, and asks for the key. One table row per file shows the reading
time, whether the answer contains the key, and the page or heading of the first recalled passage
with the key; or the server's error message if it refused the file. If the whole text fits in the
local window, no passage is recalled; the table then shows the place of the needle in the server's
text. Exit code 1: for a document that was read, the key was missing from the answer or another
place was cited. Overrides of the configuration come last.
"""

from __future__ import annotations

import argparse
import base64
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from inf_llm.cli.output import set_waiting

    set_waiting()

import httpx

from benchmark.guard import guarded
from benchmark.load.planting import plant
from benchmark.load.server import Server, serving
from benchmark.timing.arguments import write_json
from inf_llm.cli.output import require_writable
from inf_llm.errors import InfLLMError
from inf_llm.formats import decoded, is_page, kind_of
from inf_llm.formats.places import shortened
from inf_llm.generation.documents import document_of
from inf_llm.units import size

FOUND = 1
"""Exit code if a key was not found or a wrong place was cited."""
NEEDLE = "The pass key is {0}. Remember it. {0} is the pass key."
QUESTION = "What is the pass key?"
BETWEEN = " \u2013 "
"""Separator between the first and the last label of a passage that spans several places."""


@dataclass
class Row:
    """The result of one file.

    Attributes:
        file: the file's name.
        kind: "pdf", "epub", "docx", "html" or "text".
        bytes: the file's size.
        places: number of pages or headings.
        origin: the source that the server reports, such as "a PDF of 36 pages".
        tokens: number of tokens read.
        seconds: time from the upload until the document was read.
        found: whether the answer contains the key.
        wanted: the page or heading of the needle.
        label: the page or heading of the first recalled passage with the key. If no passage has
            the key, that of the needle in the server's text; None if the text lacks the key too.
        recalled: whether a recalled passage contains the key.
        refused: the server's error message if it refused the file, otherwise empty.
    """

    file: str
    kind: str
    bytes: int
    places: int = 0
    origin: str = ""
    tokens: int = 0
    seconds: float = 0.0
    found: bool = False
    wanted: str = ""
    label: str | None = None
    recalled: bool = False
    refused: str = ""

    @property
    def cited(self) -> bool:
        """Whether the cited place is the place of the needle."""
        if self.label is None:
            return False
        first, _, last = self.label.partition(BETWEEN)
        page, ends = _page(self.wanted), (_page(first), _page(last or first))
        return (
            self.label == self.wanted
            or self.label.startswith(self.wanted + BETWEEN)
            or self.label.endswith(BETWEEN + self.wanted)
            or (page > 0 and ends[0] <= page <= ends[1])
        )

    @property
    def right(self) -> bool:
        """Whether the file was refused with a message, or its key found and cited."""
        return bool(self.refused) or (self.found and self.cited)

    def line(self) -> str:
        """Return the row as a line of a Markdown table."""
        start = f"| {self.file} | {self.kind} | {size(self.bytes)} "
        if self.refused:
            return f"{start}| | | refused: {self.refused} | | |"
        found = "found" if self.found else "NOT FOUND"
        how = "" if self.recalled else ", in the window"
        cited = self.label or ("no place" if self.label == "" else "NOT IN THE TEXT")
        wrong = "" if self.cited else f" (WRONG: it is in {self.wanted!r})"
        facts = f"{self.places:,} | {self.seconds:.1f} s, {self.tokens:,} tokens | {self.origin}"
        return f"{start}| {facts} | {found}{how} | {cited}{wrong} |"


def _page(label: str) -> int:
    """Return the number in a page label; 0 for other labels."""
    number = label.removeprefix("page ")
    return int(number) if label.startswith("page ") and number.isdecimal() else 0


HEAD = f"| file | kind | size | places | read | as | needle | cited |\n|{8 * '---|'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 (see the module), or 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", default="demo")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--seed", type=int, default=0, help="of the keys")
    parser.add_argument("--threads", type=int, default=1, help="of the server")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args(arguments)
    rows: list[Row] = []
    code = guarded(lambda: rows.extend(_run(args)))
    return code or (0 if all(row.right for row in rows) else FOUND)


def _run(args: argparse.Namespace) -> list[Row]:
    require_writable("--json", args.json)
    files = sorted(file for file in args.folder.rglob("*") if file.is_file())
    if not files:
        raise InfLLMError(f"{args.folder} has no files: name a folder of documents")
    keys = random.Random(args.seed)
    rows = []
    print(HEAD)
    with serving(["--config", args.config, *args.overrides], args.threads) as server:
        for file in files:
            key = f"{keys.randrange(10_000, 100_000)}"
            rows.append(tried(server, file.name, file.read_bytes(), key, args.question))
            print(rows[-1].line(), flush=True)
            write_json(args.json, [asdict(row) for row in rows])
    print(f"\n{summary(rows)}")
    return rows


def tried(server: Server, name: str, data: bytes, key: str, question: str) -> Row:
    """Plant a needle, upload the copy and ask. An unreadable file is uploaded unchanged."""
    row = Row(name, _kind(name, data), len(data))
    try:
        row.places = len(document_of(data, name).places)
        planted = plant(row.kind, name, data, NEEDLE.format(key))
        data, row.wanted = planted.data, shortened(planted.label)
    except InfLLMError:
        pass
    with httpx.Client(base_url=server.address, timeout=None) as http:
        started = time.perf_counter()
        file = base64.b64encode(data).decode()
        reply = http.post("/v1/documents", json={"file": file, "name": name})
        row.seconds = time.perf_counter() - started
        document = reply.json()
        if reply.is_error:
            row.refused = document["error"]["message"]
            return row
        row.origin, row.tokens = document.get("origin") or "text", document["tokens"]
        _ask(http, server.model, document["id"], key, question, row)
        http.delete(f"/v1/documents/{document['id']}")
    return row


def _kind(name: str, data: bytes) -> str:
    kind = kind_of(data)
    if kind is not None:
        return kind
    try:
        return "html" if is_page(decoded(name, data)[0]) else "text"
    except InfLLMError:
        return "text"


def _ask(http: httpx.Client, model: str, document: str, key: str, question: str, row: Row) -> None:
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 16,
        "document": document,
        "recall": True,
    }
    answer = http.post("/v1/chat/completions", json=body).json()
    if "error" in answer:
        raise InfLLMError(f"{row.file}: the question was refused: {answer['error']['message']}")
    row.found = key in answer["choices"][0]["message"]["content"]
    with_key = [passage for passage in answer["recalled"] if key in passage["text"]]
    row.recalled = bool(with_key)
    row.label = with_key[0]["label"] or "" if with_key else _label_in_text(http, document, key)


def _label_in_text(http: httpx.Client, document: str, key: str) -> str | None:
    """Return the page or heading of the key in the server's text; None if it is not there."""
    start = characters = 0
    while not characters or start < characters:
        path = f"/v1/documents/{document}/text"
        part = http.get(path, params={"start": start}).json()
        characters, at = part["characters"], start + part["text"].find(key)
        if at >= start:
            around = (p["label"] for p in part["places"] if p["start"] <= at < p["end"])
            return next(around, "")
        start = part["end"]
    return None


def summary(rows: Sequence[Row]) -> str:
    """Return a table of counts for each kind of document."""
    lines = ["| kind | files | read | found | cited | refused |", "|---|---:|---:|---:|---:|---:|"]
    for kind in dict.fromkeys(row.kind for row in rows):
        of = [row for row in rows if row.kind == kind]
        read = [row for row in of if not row.refused]
        counts = len(of), len(read), sum(row.found for row in read), sum(row.cited for row in read)
        lines.append(f"| {kind} | {' | '.join(map(str, counts))} | {len(of) - len(read)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
