"""The replicas of a server as processes."""

from __future__ import annotations

from pathlib import Path

TITLE = b"ray::ServeReplica:inf-llm"


def replicas(server: int) -> list[int]:
    """Process ids of the replicas of a server that has a cluster of its own."""
    return sorted(pid for pid in _all() if _title(pid).startswith(TITLE) and _is_under(pid, server))


def _all() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _is_under(pid: int, above: int) -> bool:
    """Whether a process is one's child, or a child's."""
    while pid > 1:
        if pid == above:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False
