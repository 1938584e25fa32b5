"""Small things that are kept between runs in the user's cache folder: a JSON object a file.

Losing them costs time and nothing else, so nothing here fails.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from inf_llm.atomic import write_atomically


def cache_file(name: str) -> Path:
    """Where the file of a name is: in `$XDG_CACHE_HOME/inf-llm`, by default `~/.cache/inf-llm`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "inf-llm" / f"{name}.json"


def cached(name: str) -> dict[str, Any]:
    """What is kept in a file; nothing where it is absent or damaged."""
    with contextlib.suppress(OSError, ValueError):
        said = json.loads(cache_file(name).read_bytes())
        if isinstance(said, dict):
            return said
    return {}


def keep(name: str, key: str, value: Any) -> None:
    """Add a value in plain types to a file, where the folder can be written."""
    file = cache_file(name)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(cached(name) | {key: value}, indent=1).encode()
        write_atomically(file, content, private=True)
