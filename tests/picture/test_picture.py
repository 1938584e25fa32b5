"""The picture says what the rules say, and comes out in every form."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import inf_llm
from inf_llm.cli import app
from inf_llm.errors import MissingExtraError, SettingsError
from inf_llm.picture import measure
from inf_llm.picture.measure import NOTHING, OTHER, RECALLED, SINK, WINDOW
from inf_llm.settings import make_settings

WINDOWS: dict[str, Any] = {"n_init": 4, "n_local": 24}
MEMORY: dict[str, Any] = {**WINDOWS, "block_size": 6, "topk": 2, "repr_topk": 2}
MEMORY |= {"max_cached_block": 5, "exc_block_size": 8}
LENGTH = 150
AT = torch.arange(LENGTH)
TRUE = AT[:, None] - AT


@pytest.mark.parametrize("kind", ["origin", "infinite-lm", "stream-lm"])
def test_what_is_seen_and_how_far_follow_the_rule(kind: str) -> None:
    sight = measure(make_settings(kind, **({} if kind == "origin" else WINDOWS)), LENGTH)
    kinds = torch.full((LENGTH, LENGTH), NOTHING)
    distance = torch.full((LENGTH, LENGTH), -1)
    near = TRUE >= 0 if kind == "origin" else (TRUE >= 0) & (TRUE < 24)
    kinds[near], distance[near] = WINDOW, TRUE[near]
    if kind != "origin":
        sinks = (TRUE >= 24) & (AT < 4)
        far = (24 + 4 - 1 - AT if kind == "stream-lm" else torch.full_like(AT, 23)).expand_as(TRUE)
        kinds[sinks], distance[sinks] = SINK, far[sinks]
    assert torch.equal(sight.kind.long(), kinds)
    assert torch.equal(sight.distance.long(), distance)


def test_recalled_blocks_are_whole_and_as_many_as_chosen() -> None:
    sight = measure(make_settings("inf-llm", **MEMORY), LENGTH)
    recalled = sight.kind == RECALLED
    assert (sight.distance[recalled] == 23).all()
    assert (sight.distance[sight.kind == SINK] == 23).all()
    assert (sight.distance[sight.kind == OTHER] == 23).all()
    assert (sight.kind[(TRUE >= 0) & (TRUE < 24)] == WINDOW).all()
    assert (sight.kind[TRUE < 0] == NOTHING).all()
    blocks = recalled[:, 4:148].unflatten(1, (-1, 6)).sum(2)
    assert set(blocks.flatten().tolist()) == {0, 6}
    assert (blocks[100:] == 6).sum(1).tolist() == [2] * 50
    left_out = (sight.kind[149, 4:100] == NOTHING).sum()
    assert left_out >= 80, "most of the middle is not seen"


def test_a_middle_that_is_chosen_stands_half_a_window_away() -> None:
    sight = measure(make_settings("infinite-lm", **WINDOWS, topk_middle=3), LENGTH)
    chosen = sight.kind == RECALLED
    assert chosen[60:].sum(1).tolist() == [3] * 90
    assert (sight.distance[chosen] == 12).all()


def test_long_texts_are_sampled() -> None:
    settings = make_settings("infinite-lm", n_init=64, n_local=512)
    sight = measure(settings, 4096, cells=64)
    assert sight.kind.shape == (64, 64)
    assert sight.kind[63, [0, 1, 50, 56, 63]].tolist() == [SINK, NOTHING, NOTHING, WINDOW, WINDOW]
    assert sight.distance[63, [0, 60]].tolist() == [511, 192]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_files(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is absent: pip install 'inf-llm[plot]'")
    file = tmp_path / f"mask{suffix}"
    text = inf_llm.visualize(make_settings("inf-llm", **MEMORY), LENGTH, file, all_types=True)
    assert file.stat().st_size > 5000
    for name in ("origin", "infinite-lm", "stream-lm", "inf-llm"):
        assert f"{name}: 150 tokens" in text
    if suffix == ".svg":
        words = file.read_text()
        assert all(word in words for word in ("recalled blocks", "sinks", "key (token looked at)"))


def test_what_cannot_be_drawn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings("inf-llm", **MEMORY)
    with pytest.raises(SettingsError, match="length = 1 cannot be drawn: from 2 to 32768"):
        inf_llm.visualize(settings, 1)
    with pytest.raises(SettingsError, match=r"accepted: \.png, \.svg"):
        inf_llm.visualize(settings, 100, "mask.pdf")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'inf-llm\[plot\]'"):
        inf_llm.visualize(settings, 100, "mask.png")


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "mask.svg"
    arguments = [
        "mask",
        "-c",
        "config/llama-3-infinite-lm.yaml",
        "--length",
        "1k",
        "--out",
        str(file),
    ]
    done = CliRunner().invoke(app, [*arguments, "model.n_local=256"])
    assert done.exit_code == 0, done.output
    assert "infinite-lm: 1,024 tokens, one cell is 16" in done.output
    assert "█ local window  ▓ sinks" in done.output
    assert file.exists()
    assert CliRunner().invoke(app, ["mask", *arguments[1:3], "--length", "x"]).exit_code == 2
