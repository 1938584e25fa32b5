"""The chat page, which may run its own script only."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from starlette.responses import Response

PAGE = Path(__file__).parent.parent / "assets" / "chat.html"


def page_response() -> Response:
    """The chat page, with a policy that lets it run its own script and talk to this server only."""
    page = PAGE.read_bytes()
    headers = {
        "content-security-policy": "; ".join(
            f"{what} {sources}" for what, sources in _policy(page).items()
        ),
        "cross-origin-opener-policy": "same-origin",
        "x-frame-options": "DENY",
        "cache-control": "no-cache",
    }
    return Response(page, headers=headers, media_type="text/html")


def _policy(page: bytes) -> Mapping[str, str]:
    def hashes(tag: bytes) -> str:
        found = re.findall(b"<" + tag + b">(.*?)</" + tag + b">", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in found]
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return {
        "default-src": "'none'",
        "script-src": hashes(b"script"),
        "style-src": hashes(b"style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
