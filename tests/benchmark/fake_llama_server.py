"""A server that answers as llama.cpp's does, without a model: for the tests of `benchmark/beside`.

It has a context of as many tokens as `--ctx-size` says, at most `--trained`, and waits `--sleep`
seconds before it answers a prompt of more than 300 tokens. Token n is the text "n ", and the
logarithm of every token is -0.5.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PARSER = argparse.ArgumentParser(allow_abbrev=False)
PARSER.add_argument("--port", type=int)
PARSER.add_argument("--ctx-size", type=int)
PARSER.add_argument("--trained", type=int, default=1 << 20)
PARSER.add_argument("--sleep", type=float, default=0.0)
PARSER.add_argument("--pid", type=Path)
ARGS, OTHERS = PARSER.parse_known_args()


class Handler(BaseHTTPRequestHandler):
    """`/health`, `/completion` and `/detokenize`."""

    def do_GET(self) -> None:
        self._send(200, {"status": "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/detokenize":
            self._send(200, {"content": "".join(f"{token} " for token in body["tokens"])})
        elif len(body["prompt"]) >= min(ARGS.ctx_size, ARGS.trained):
            self._send(400, {"error": {"code": 400, "message": "exceeds the context size"}})
        elif body.get("stream"):
            time.sleep(ARGS.sleep if len(body["prompt"]) > 300 else 0)
            self._stream(body["n_predict"])
        else:
            token = body["logit_bias"][0][0]
            entry = {"id": token, "logprob": -0.5}
            self._send(200, {"tokens": [token], "completion_probabilities": [entry]})

    def _stream(self, count: int) -> None:
        self.send_response(200)
        self.end_headers()
        for token in range(count):
            self._event({"tokens": [token], "stop": False})
        self._event({"tokens": [], "stop": True})

    def _event(self, data: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())

    def _send(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    if ARGS.pid is not None:
        ARGS.pid.write_text(str(os.getpid()))
    ThreadingHTTPServer(("127.0.0.1", ARGS.port), Handler).serve_forever()
