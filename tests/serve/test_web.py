"""Where a server listens, how many connections it takes, and how it ends."""

from __future__ import annotations

import re
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from inf_llm.cli import app
from inf_llm.errors import ConfigError
from inf_llm.serve import web
from inf_llm.serve.web import listen, most_connections, trusted_proxies
from tests.serve.conftest import ServerProcess
from tests.serve.talk import ask

Start = Callable[..., ServerProcess]


def test_a_port_is_taken_at_once() -> None:
    first = listen("127.0.0.1", 0)
    port = int(first.address.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1, port {port}"):
        listen("127.0.0.1", port)
    first.socket.close()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "256.1.1.1"])
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        listen(host, 0)


def test_proxies_are_addresses() -> None:
    assert trusted_proxies("--x", "127.0.0.1, 10.0.0.0/8,*") == ["127.0.0.1", "10.0.0.0/8", "*"]
    for wrong in ("", "localhost", "10.0.0.0/99", "1.2.3.4,,"):
        with pytest.raises(ConfigError, match=r"--x .* is no address"):
            trusted_proxies("--x", wrong)


def test_few_files_make_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(100_000, 100_000)]
    monkeypatch.setattr(resource, "getrlimit", lambda what: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda what, pair: limits.append(pair))
    assert most_connections(512) == 512
    assert len(limits) == 1
    limits.append((64, 100_000))  # may be raised
    assert most_connections(512) == 512
    assert limits[-1][0] > 512
    limits.append((300, 300))
    assert web.MIN_CONNECTIONS < most_connections(512) < 300
    limits.append((100, 100))
    with pytest.raises(ConfigError, match=r"100 files may be open at once.*ulimit -n"):
        most_connections(512)
    limits.append((resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert most_connections(512) == 512


@pytest.mark.parametrize(
    ("numbers", "grace"), [((signal.SIGINT, signal.SIGINT), "60"), ((signal.SIGTERM,), "1")]
)
def test_an_end_that_does_not_wait(started: Start, numbers: tuple[int, ...], grace: str) -> None:
    """A second Ctrl-C, and a grace that has passed: the client reads why, without a traceback."""
    server = started("--grace", grace)
    body = {"model": server.model, "messages": [{"role": "user", "content": "Go on"}]}
    body |= {"max_tokens": 10**6, "stream": True}
    url = f"{server.address}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=30) as stream:
        lines = stream.iter_lines()
        while not next(lines).startswith("data: "):
            pass
        before = time.monotonic()
        for number in numbers:
            server.process.send_signal(number)
            time.sleep(0.3)
        rest = [line for line in lines if line]
    assert '"code": "cancelled"' in rest[-1]
    assert server.process.wait(20) == 0
    assert time.monotonic() - before < 15
    assert "Traceback" not in "".join(server.lines)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_proxy_says_who_the_client_is(started: Start, trusted: bool) -> None:
    more = ("--forwarded-allow-ips", "127.0.0.1") if trusted else ()
    server = started("--max-queue-per-client", "1", *more)
    one = {"x-forwarded-for": "203.0.113.1"}
    stream = ask(server, "Go on", max_tokens=10**6, stream=True, extra_headers=one)
    next(iter(stream))
    body = {"model": server.model, "messages": [{"role": "user", "content": "Hi"}]}
    body |= {"stream": True}
    url, other = f"{server.address}/v1/chat/completions", {"x-forwarded-for": "203.0.113.2"}
    with httpx.stream("POST", url, json=body, headers=other, timeout=30) as reply:
        assert reply.status_code == (200 if trusted else 429)
        if trusted:  # it waits, and hears so at once
            assert next(reply.iter_lines()) == ": accepted"
    stream.close()


def test_what_is_wrong_is_said_before_a_model_is_loaded(tiny_config: Path) -> None:
    first = listen("127.0.0.1", 0)
    port = first.address.rpartition(":")[2]
    for options, env, says in (
        (("--port", port), {}, r"cannot listen on 127\.0\.0\.1"),
        ((), {"INF_LLM_API_KEY": ""}, r"--api-key \(INF_LLM_API_KEY\) is empty"),
        ((), {"INF_LLM_API_KEY": "  "}, r"--api-key \(INF_LLM_API_KEY\) is empty"),
        (("--memory-budget", "-5MB"), {}, r"--memory-budget = '-5MB' is not a size"),
        (("--memory-budget", "0"), {}, r"--memory-budget = '0' is not a size"),
        (("--memory-budget", "900TB"), {}, r"--memory-budget is 900.*this machine has"),
        (("--forwarded-allow-ips", "me"), {}, r"'me' is no address"),
    ):
        run = CliRunner().invoke(app, ["serve", "--config", str(tiny_config), *options], env=env)
        assert run.exit_code == 2, run.stderr
        assert re.search(says, run.stderr), run.stderr
        assert "loading" not in run.stderr
    first.socket.close()


def test_a_budget_without_room_for_a_text(tiny_config: Path) -> None:
    options = ["serve", "--config", str(tiny_config), "--port", "0", "--memory-budget", "1KB"]
    run = CliRunner().invoke(app, options)
    assert run.exit_code == 2
    assert re.search(r"--memory-budget is 1\.0 KB, but \d+ tokens take", run.stderr)
