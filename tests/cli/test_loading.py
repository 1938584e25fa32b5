"""What the command line says about loading a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inf_llm.config_file import shipped
from inf_llm.hf import dtype
from inf_llm.processor import processor
from tests.checkpoints import script, write_config
from tests.cli.conftest import Invoke


@pytest.mark.parametrize("named", [[], ["model.dtype=float32"]], ids=["auto", "named"])
def test_the_measured_format_is_said(
    invoke: Invoke, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: list[str]
) -> None:
    monkeypatch.setattr(dtype, "_known", {})
    monkeypatch.setattr(
        dtype, "time_formats", lambda *_: {torch.bfloat16: 0.0052, torch.float32: 0.001}
    )
    tokenizer = script().make_tokenizer()
    script().make_model(len(tokenizer)).bfloat16().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    config = write_config(tmp_path / "c.yaml", "stream-lm", str(tmp_path / "model"))
    done = invoke("run", "-c", config, "-f", book, "-p", "Why?", "-n", 2, *named)
    assert done.exit_code == 0, done.stderr
    told = "loaded in float32 (one layer takes 1.0 ms, and 5.2 ms in bfloat16); " + processor()
    assert (told in done.stderr.splitlines()) == (not named)


def test_a_model_alone_says_which_configuration_it_takes(
    invoke: Invoke, book: Path, checkpoint: Path
) -> None:
    done = invoke("run", "-m", checkpoint, "-f", book, "-p", "Why?", "-n", 2)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.splitlines()[0].endswith("with inf-llm attention, settings of default")
    neither = invoke("run", "-f", book, "-p", "Why?")
    assert neither.exit_code == 2
    assert "give --config with a file or a name" in neither.stderr


def test_the_names_of_configurations_are_listed(invoke: Invoke) -> None:
    rows = [line.split() for line in invoke("configs").stdout.splitlines()]
    assert ["demo-stream-llm", "demo", "stream-lm"] in rows
    assert {row[0] for row in rows} == set(shipped())
