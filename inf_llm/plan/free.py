"""Free memory of the host and of the device, as far as the system reports it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

_GROUPS = Path("/sys/fs/cgroup")
_CGROUP_FILE = Path("/proc/self/cgroup")


def host_free() -> int | None:
    """Return the free host memory in bytes, within the limit of a container; None if unknown."""
    try:
        import psutil  # comes with accelerate
    except ImportError:
        return None
    sizes = [int(psutil.virtual_memory().available), _group_free(_GROUPS, _CGROUP_FILE)]
    return min(size for size in sizes if size is not None)


def device_free() -> int | None:
    """Return the free memory of the GPU in bytes; None without a GPU."""
    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None


def _group_free(groups: Path, cgroup_file: Path) -> int | None:
    """Return the bytes left in the tightest control group (cgroup v2) of this process, or None."""
    sizes = map(_left, _around(groups, cgroup_file))
    return min((size for size in sizes if size is not None), default=None)


def _group_limits(groups: Path, cgroup_file: Path) -> list[int]:
    """Return the memory limits of the control groups that contain this process."""
    texts = []
    for group in _around(groups, cgroup_file):
        with contextlib.suppress(OSError):  # no limit, or no control groups
            texts.append((group / "memory.max").read_text().strip())
    return [int(text) for text in texts if text.isdecimal()]


def _around(groups: Path, cgroup_file: Path) -> list[Path]:
    """Return the folders of the control groups that contain this process."""
    try:
        named = next(
            line[3:] for line in cgroup_file.read_text().splitlines() if line.startswith("0::")
        )
    except (OSError, StopIteration):
        return []
    folder = groups / named.strip("/")
    return [each for each in (folder, *folder.parents) if each == groups or groups in each.parents]


def _left(group: Path) -> int | None:
    """Return the bytes below a group's limit, or None; cached files count as free memory."""
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        kept = {key: int(value) for key, value in lines}
    except (OSError, ValueError):  # no limit, or no control groups
        return None
    return max(0, limit - used + kept.get("inactive_file", 0) + kept.get("active_file", 0))


def machine_bytes() -> int | None:
    """Return all bytes of host and device, within the limit of a container; None if unknown."""
    try:
        import psutil
    except ImportError:
        return None
    host = [int(psutil.virtual_memory().total), *_group_limits(_GROUPS, _CGROUP_FILE)]
    device = torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else 0
    return min(host) + int(device)
