"""The chat page, and what a browser lets it do."""

from __future__ import annotations

import httpx

from tests.serve.conftest import Server


def test_the_page_may_run_only_its_own_script(server: Server) -> None:
    reply = httpx.get(server.address)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "http://" not in reply.text.replace("http://www.w3.org/", "")
    assert "https://" not in reply.text
