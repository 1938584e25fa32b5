"""The chat page: its HTML, and the scripts, styles and pictures that it loads."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from inf_llm.serve.errors import ApiError

FOLDER = Path(__file__).parent.parent / "assets" / "page"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    # the page may turn a text into HTML only through DOMPurify
    "require-trusted-types-for": "'script'",
    "trusted-types": "dompurify",
}
_START = {
    "content-security-policy": "; ".join(f"{what} {whom}" for what, whom in _POLICY.items()),
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}
_FILE = {
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "public, max-age=31536000, immutable",
}
_VERSION = "VERSION"
"""Placeholder of `Page.version` in `index.html`."""


class Page:
    """The files of the chat page, read once.

    The address of a file contains a digest of all files, so that browsers can cache each file until
    any of them changes. The address of the HTML has no digest; browsers revalidate it each time.

    Attributes:
        version: the digest of all files.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        files = sorted(file for file in folder.rglob("*") if file.suffix in _TYPES)
        self._files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
        digest = hashlib.sha256()
        for name, content in self._files.items():
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        self.version = digest.hexdigest()[:16]
        start = (folder / "index.html").read_text(encoding="utf-8")
        self._start = start.replace(_VERSION, self.version).encode()

    async def start(self, request: Request) -> Response:
        """Send the HTML, with a content security policy that allows this server only."""
        return Response(self._start, headers=_START, media_type="text/html")

    async def file(self, request: Request) -> Response:
        """Send a script, a style sheet or a picture of the page.

        Raises:
            ApiError: there is no file of that name, or the version is another one.
        """
        version, name = request.path_params["version"], request.path_params["name"]
        if version != self.version or name not in self._files:
            raise ApiError(404, f"there is no file {name[:80]!r} of this page here", "not_found")
        kind = _TYPES[Path(name).suffix]
        return Response(self._files[name], headers=_FILE, media_type=kind)
