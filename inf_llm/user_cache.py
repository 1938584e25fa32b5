"""Small values that persist between runs in the user's cache folder: one JSON object per file.

A lost value only costs the time to compute it again, so no file error is raised.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from inf_llm.atomic import write_atomically


def cache_file(name: str) -> Path:
    """Path of the file for a name: in `$XDG_CACHE_HOME/inf-llm`, by default `~/.cache/inf-llm`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "inf-llm" / f"{name}.json"


def cached(name: str) -> dict[str, Any]:
    """Return the content of a cache file; empty if the file is absent or damaged."""
    with contextlib.suppress(OSError, ValueError):
        data = json.loads(cache_file(name).read_bytes())
        if isinstance(data, dict):
            return data
    return {}


def keep(name: str, key: str, value: Any) -> None:
    """Add a value in plain types to a cache file; do nothing if the folder is not writable."""
    file = cache_file(name)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(cached(name) | {key: value}, indent=1).encode()
        write_atomically(file, content, private=True)
