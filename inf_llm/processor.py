"""Name and instruction sets of the processor, which every time measured on a CPU depends on.

The fastest number format, and its gain, follow from the instruction sets.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")  # Linux
_SETS = {  # flag in Linux: name of the instruction set
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
}


def machine(device: str | None = None) -> str:
    """The name of the device that computes: the GPU, or the `processor`.

    Args:
        device: `cuda` or `cpu`; None for the GPU if there is one, otherwise the CPU.
    """
    import torch

    if device == "cuda" or (device is None and torch.cuda.is_available()):
        return torch.cuda.get_device_name()
    return processor()


@functools.cache
def processor() -> str:
    """Name, instruction sets and cores of the processor: `AMD EPYC (AVX2, AVX-512), 2 cores`."""
    named, sets = _from_cpuinfo() if _CPUINFO.exists() else (_from_system(), _from_torch())
    shown = f"{named} ({', '.join(sets)})" if sets else named
    return f"{shown}, {os.cpu_count()} cores"


def _from_cpuinfo() -> tuple[str, list[str]]:
    """Name and instruction sets of the first core in Linux."""
    lines = (line.partition(":") for line in _CPUINFO.read_text().split("\n\n")[0].splitlines())
    fields = {key.strip().lower(): value.strip() for key, _, value in lines}
    flags = (fields.get("flags") or fields.get("features") or "").split()
    named = fields.get("model name") or platform.processor() or platform.machine()
    return named, [written for flag, written in _SETS.items() if flag in flags]


def _from_system() -> str:
    """Name of the processor from macOS, or from Python on other systems."""
    try:
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        name = ""
    return name or platform.processor() or platform.machine()


def _from_torch() -> list[str]:
    """The widest instruction set that torch detected; empty for none."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return [] if capability in ("DEFAULT", "NO AVX") else [capability]
