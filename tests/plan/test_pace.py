"""Times from what was measured: a straight line per token, kept in the user's cache folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inf_llm.config import load_config
from inf_llm.hf.outline import outline
from inf_llm.plan.pace import Pace, Point, keep, known
from inf_llm.user_cache import cache_file

PACE = Pace(100, 2.0, Point(200, 0.01, 0.1), Point(1200, 0.02, 0.3), "float32")


def test_reading_is_the_sum_over_tokens() -> None:
    each = [0.01 + 0.01 * max(0, at - 200) / 1000 for at in range(100, 5000)]
    assert PACE.reading(5000) == pytest.approx(2 + sum(each), rel=0.01)
    assert PACE.reading(50) == 1.0


def test_answering_grows_by_the_line() -> None:
    assert PACE.answering(200) == 0.1
    assert PACE.answering(2200) == pytest.approx(0.5)


def test_one_point_and_noise_give_no_growth() -> None:
    near = PACE.near
    flat = replace(PACE, far=near)
    assert flat.answering(10**6) == 0.1
    faster = replace(PACE, far=Point(1200, 0.005, 0.05))
    assert faster.answering(10**6) == 0.1


def test_what_was_kept_is_found_for_the_same_settings_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = load_config("demo-inf-llm")
    model = outline(config)
    assert known(model, config) is None
    keep(model, config, PACE)
    assert known(model, config) == PACE
    assert known(model, load_config("demo-inf-llm", ["max_len=1000"])) == PACE
    assert known(model, load_config("demo-inf-llm", ["model.topk=3"])) is None
    assert known(replace(model, files=(("model.safetensors", 1, 2),)), config) is None
    cache_file("pace").write_text("{")
    assert known(model, config) is None
