"""The chat page: its start, and the files that it may load."""

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
    # no text becomes HTML or a script but through DOMPurify
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
"""Stands in `index.html` for what `Page.version` is."""


class Page:
    """The files of the page, read once.

    They have addresses with a digest of all of them, so that browsers keep them for as long as they
    are the same. The start has none, and is asked for each time.

    Attributes:
        version: the digest.
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
        """The page itself, with a policy that lets it load and reach this server only."""
        return Response(self._start, headers=_START, media_type="text/html")

    async def file(self, request: Request) -> Response:
        """One of its scripts, styles or pictures.

        Raises:
            ApiError: there is none of that name, or it is another version.
        """
        version, name = request.path_params["version"], request.path_params["name"]
        if version != self.version or name not in self._files:
            raise ApiError(404, f"there is no file {name[:80]!r} of this page here", "not_found")
        kind = _TYPES[Path(name).suffix]
        return Response(self._files[name], headers=_FILE, media_type=kind)
