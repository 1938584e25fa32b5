"""llama.cpp through its own server, with token ids as input and tokens and log-probs as output."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from benchmark.beside.base import WARM_UP, Refused, Subject
from benchmark.beside.job import Job
from benchmark.load.server import Server
from inf_llm.errors import InfLLMError
from inf_llm.fidelity.tasks import Question
from inf_llm.hf.gguf import read_head
from inf_llm.optional import need

_STEP = 256
"""The server rounds its context size up to a multiple of this."""
_FORCED = 1000.0
"""Logit bias that forces a token. The log-prob in the reply is that of the unbiased model."""


class LlamaServer(Subject):
    """A server with one slot, flash attention, and keys and values in the format `kept`."""

    kept = "f16"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        assert job.server is not None
        assert job.gguf is not None
        httpx = need("httpx", "asking a server", "peers")
        # a connection of its own for each request: the server closes connections that are idle
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.Client(timeout=None, limits=limits)
        self._port = _free_port()
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the subject)
        self.flags = self._flags(job)
        command = [*shlex.split(job.server), "-m", job.gguf, "--port", str(self._port)]
        threads = {"OMP_NUM_THREADS": str(job.threads)}
        self._process = subprocess.Popen(
            [*command, *self.flags], stdout=self._log, stderr=self._log, env=os.environ | threads
        )
        self._await()

    def _flags(self, job: Job) -> list[str]:
        room = -(-job.room // _STEP) * _STEP
        sizes = {
            "ctx-size": room,
            "parallel": 1,
            "threads": job.threads,
            "threads-batch": job.threads,
            "flash-attn": "on",
            "cache-type-k": self.kept,
            "cache-type-v": self.kept,
        }
        given = [part for name, value in sizes.items() for part in (f"--{name}", str(value))]
        return [*given, "--no-webui"]

    def _await(self) -> None:
        """Wait until the model is loaded."""
        httpx = need("httpx", "asking a server", "peers")
        while self._process.poll() is None:
            try:
                if self._client.get(self._url("/health")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise InfLLMError(f"llama.cpp's server did not start: {_end(self._log)}")

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._port}{path}"

    def warm_up(self) -> None:
        list(self._completion(list(self.job.context.ids[-WARM_UP:]), 2))

    def ask(self, question: Question, tokens: int) -> Iterator[int]:
        for event in self._completion([*self.job.context.ids, *question.tail], tokens):
            yield from event.get("tokens", ())

    def likelihood(self, question: Question) -> float | None:
        """Sum the log-probs of the right tokens: force each of them by a bias on its logit.

        The server reports the log-prob only of the token that it samples.
        """
        prompt, total = [*self.job.context.ids, *question.tail], 0.0
        for token in question.answer:
            forced = _body(prompt, 1) | {"n_probs": 1, "logit_bias": [[token, _FORCED]]}
            reply = self._client.post(self._url("/completion"), json=forced)
            entry = (reply.json().get("completion_probabilities") or [{}])[0]
            if entry.get("id") != token or "logprob" not in entry:
                return None
            total -= entry["logprob"]
            prompt.append(token)
        return total / len(question.answer)

    def _completion(self, prompt: list[int], tokens: int) -> Iterator[dict[str, Any]]:
        body = _body(prompt, tokens) | {"stream": True}
        with self._client.stream("POST", self._url("/completion"), json=body) as reply:
            if reply.status_code != 200:
                raise Refused(_message(reply.read()))
            for line in reply.iter_lines():
                kind, _, data = line.partition(": ")
                if kind == "error":
                    raise Refused(_message(data.encode()))
                if kind == "data" and data != "[DONE]":
                    yield json.loads(data)

    def text(self, ids: list[int]) -> str:
        reply = self._client.post(self._url("/detokenize"), json={"tokens": ids})
        return str(reply.json()["content"])

    def how(self) -> dict[str, Any]:
        return {"flags": " ".join(self.flags), "weights": Path(self.job.gguf or "").name}

    def peak(self) -> int | None:
        return Server(self._url(""), "", self._process.pid).memory("VmHWM")

    def seconds(self) -> float:
        import psutil  # comes with accelerate

        used = psutil.Process(self._process.pid).cpu_times()
        return float(used.user + used.system)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class EightBitServer(LlamaServer):
    """A `LlamaServer` with keys and values in 8 bits."""

    kept = "q8_0"


class StretchedServer(LlamaServer):
    """A `LlamaServer` beyond the trained length: YaRN scaling, with the length limit overridden."""

    def _flags(self, job: Job) -> list[str]:
        flags = super()._flags(job)
        trained = job.trained
        if trained is None or job.room <= trained:
            return flags
        length = f"{read_head(Path(str(job.gguf))).architecture}.context_length"
        room = int(flags[1])
        yarn = ["--rope-scaling", "yarn", "--rope-scale", f"{room / trained:g}"]
        limit = ["--yarn-orig-ctx", str(trained), "--override-kv", f"{length}=int:{room}"]
        return [*flags, *yarn, *limit]


def _body(prompt: list[int], tokens: int) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "n_predict": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": True,
        "return_tokens": True,
    }


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return body.decode(errors="replace")[:300]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _end(log: IO[str]) -> str:
    log.seek(0)
    return " ".join(log.read().splitlines()[-3:])[-300:]
