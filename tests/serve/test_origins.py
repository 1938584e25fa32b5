"""Browsers on other origins, and names of hosts: refused with the option that allows them."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from inf_llm.errors import ConfigError
from inf_llm.serve.origins import checked_hosts, checked_origins
from tests.serve.inprocess import CHAT, Local, local

PAGE = "http://localhost:3000"


def _preflight(server: Local, origin: str) -> httpx.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, x-stainless-os",
    }
    return server.request("OPTIONS", CHAT, headers=headers)


def _cross_origin(reply: httpx.Response) -> set[str]:
    return {name for name in reply.headers if name.startswith("access-control")}


def test_without_the_option_no_other_origin_may_ask() -> None:
    with local() as server:
        reply = _preflight(server, PAGE)
        assert reply.status_code == 403
        assert f"--cors-origin {PAGE}" in reply.json()["error"]["message"]
        answer = server.request("GET", "/v1/models", headers={"origin": PAGE})
        assert answer.status_code == 200
        assert not _cross_origin(reply) | _cross_origin(answer)


@pytest.mark.parametrize("allowed", [PAGE, "*"])
def test_a_page_of_an_allowed_origin_may_ask(allowed: str) -> None:
    with local(cors_origins=("https://other.example", allowed), api_key="k") as server:
        reply = _preflight(server, PAGE)
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] in (PAGE, "*")
        assert "POST" in reply.headers["access-control-allow-methods"]
        assert "x-stainless-os" in reply.headers["access-control-allow-headers"]
        for key in ("Bearer k", "Bearer wrong"):  # a page can read why it was refused
            headers = {"origin": PAGE, "authorization": key}
            answer = server.request("POST", CHAT, json=server.question("hi"), headers=headers)
            assert answer.status_code == (200 if key == "Bearer k" else 401)
            assert answer.headers["access-control-allow-origin"] in (PAGE, "*")
        if allowed != "*":
            assert _preflight(server, "https://evil.example").status_code == 403
            headers = {"origin": "https://evil.example", "authorization": "Bearer k"}
            answer = server.request("GET", "/v1/models", headers=headers)
            assert "access-control-allow-origin" not in answer.headers


def test_names_of_hosts_that_are_allowed() -> None:
    with local(allowed_hosts=("host.docker.internal",)) as server:
        for host in ("host.docker.internal:8000", "HOST.docker.internal", "localhost"):
            reply = server.request("GET", "/health", headers={"host": host})
            assert reply.status_code == 200
        reply = server.request("GET", "/health", headers={"host": "my-machine.local"})
        assert reply.status_code == 403
        assert "--allowed-host my-machine.local" in reply.json()["error"]["message"]
        assert "host.docker.internal" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        *(
            (checked_origins, each)
            for each in ("localhost:3000", PAGE + "/", "http://a/b", "", "null")
        ),
        *((checked_hosts, each) for each in ("http://a", "a:80", "a/b", "", "*")),
    ],
)
def test_what_is_no_origin_and_no_host(
    check: Callable[[str, list[str]], tuple[str, ...]], wrong: str
) -> None:
    with pytest.raises(ConfigError, match=r"--option .* write"):
        check("--option", [wrong])
    assert checked_origins("--option", ["*", PAGE, "app://obsidian.md"])
    assert checked_hosts("--option", ["My.Host", "[fd00::1]"]) == ("my.host", "[fd00::1]")
