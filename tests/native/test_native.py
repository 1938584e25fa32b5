"""inf_llm/native/__init__.py: which functions are used."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from inf_llm import native


@pytest.mark.parametrize("switch", ["0", "1", None])
def test_the_environment_switches_the_loops_off(switch: str | None) -> None:
    code = "import sys; from inf_llm.native import in_use; print(in_use(), 'torch' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key != "INF_LLM_NATIVE"}
    if switch is not None:
        environment["INF_LLM_NATIVE"] = switch
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    here = "torch" if switch == "0" else native.in_use()
    assert run.stdout == f"{here} False\n"
