"""Command-line options that the benchmark programs share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from inf_llm.errors import InfLLMError


def set_threads(count: int | None) -> None:
    """Set the number of torch's threads; None keeps torch's default.

    Raises:
        InfLLMError: `count` is not between 1 and the number of processors.
    """
    if count is None:
        return
    most = os.cpu_count() or 1
    if not 1 <= count <= most:
        raise InfLLMError(f"--threads {count} is out of range: 1 to {most} can be used here")
    torch.set_num_threads(count)


def check_seed(seed: int) -> None:
    """Check that torch accepts a seed.

    Raises:
        InfLLMError: the seed is out of range.
    """
    if not 0 <= seed < 1 << 63:
        raise InfLLMError(f"--seed {seed} is out of range: 0 to 2**63 - 1 are accepted")


def write_json(path: Path | str | None, facts: Any) -> None:
    """Write figures as JSON if `path` is not None.

    Raises:
        InfLLMError: the file cannot be written.
    """
    if path is None:
        return
    try:
        Path(path).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InfLLMError(f"--json {path} cannot be written: {error}") from error
