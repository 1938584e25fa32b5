"""Inputs and outputs of the published InfLLM code, one safetensors file per case.

A few lie in `tests/fixtures`; all of them may lie in `shared/oracle` beside the project.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

_ROOT = Path(__file__).resolve().parents[2]
FIXTURES = _ROOT / "tests" / "fixtures"
BESIDE = _ROOT.parent / "shared" / "oracle"


@dataclass
class Case:
    """One file: its tensors and the arguments for `replay`."""

    tensors: dict[str, Tensor]
    arguments: dict[str, Any]

    @property
    def qkv(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.tensors["q"], self.tensors["k"], self.tensors["v"]

    @property
    def topk(self) -> list[list[list[int]]]:
        """Without the padding that stands for no block."""
        return [
            [[block for block in unit if block >= 0] for unit in step]
            for step in self.tensors["topk"].tolist()
        ]


def load(path: Path) -> Case:
    """Read one case."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Case(tensors, json.loads(file.metadata()["case"]))


def cases() -> list[Any]:
    """Every case at hand as a pytest parameter; one skipped row where the folder is missing."""
    paths = {path.stem: path for path in sorted(BESIDE.glob("*.safetensors"))}
    found = paths | {path.stem: path for path in sorted(FIXTURES.glob("*.safetensors"))}
    rows: list[Any] = [pytest.param(path, id=name) for name, path in sorted(found.items())]
    if not paths:
        reason = "no folder ../shared/oracle beside the project"
        rows.append(pytest.param(None, id="others", marks=pytest.mark.skip(reason=reason)))
    return rows
