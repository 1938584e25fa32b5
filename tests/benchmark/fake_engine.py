"""An engine without a model: it finds pass keys by searching, and answers the rest by a checksum.

Run as a file it is `pred.py` with this engine. FAKE_SECONDS slows every answer down, FAKE_LOG
names a file that notes every read, and a document with the word POISON makes an answer fail.
"""

from __future__ import annotations

import os
import re
import sys
import time
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path[0] = str(HERE.parents[1])
    sys.path.append(str(HERE))

ADDRESS = "fake_engine:open_fake"


class Letters:
    """A tokenizer whose tokens are characters."""

    bos_token = None
    eos_token_id = None
    chat_template = None

    def __call__(self, text, **_):
        return {"input_ids": [ord(c) for c in text]}

    def encode(self, text, **_):
        return self(text)["input_ids"]


class FakeReader:
    def __init__(self, seen=""):
        self.seen = seen
        self.forked = False

    def read(self, ids):
        _note("read", len(ids))
        self.seen += "".join(map(chr, ids))

    def fork(self):
        return FakeReader(self.seen)

    def ask(self, ids, max_new_tokens, stop):
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
        self.seen += "".join(map(chr, ids))
        if "POISON" in self.seen:
            raise MemoryError("no room left\nfor this")
        match = re.search(r"The pass key is (\d+)\. Remember", self.seen)
        return f" {match.group(1)}" if match else f" {zlib.crc32(self.seen.encode())}"

    def stats(self):
        return {"tokens": len(self.seen), "seconds": time.time(), "blocks": {"host": 3}}


class FakeEngine:
    def __init__(self):
        self.tokenizer = Letters()

    def open(self):
        return FakeReader()

    def recover(self):
        _note("recover", 0)


def open_fake(config):
    return FakeEngine()


def _note(what, n):
    if path := os.environ.get("FAKE_LOG"):
        with Path(path).open("a") as file:
            file.write(f"{what} {n}\n")


if __name__ == "__main__":
    from benchmark.pred import main

    sys.exit(main(sys.argv[1:], engine=ADDRESS))
