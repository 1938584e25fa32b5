"""Samples spread over a local Ray cluster give the rows of one process."""

from __future__ import annotations

import pytest
from test_benchmark_pred import config, data, predict, rows, same  # noqa: F401


def test_ray_deals_samples_out_itself(config, tmp_path, capsys):  # noqa: F811
    assert predict(config, tmp_path / "o", "--engine", "ray", "--rank", "0") == 2
    assert "without --rank" in capsys.readouterr().err


@pytest.mark.slow
def test_ray_equals_one_process(config, data, tmp_path):  # noqa: F811
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'inf-llm[ray]'")
    datasets = "passkey@1k,longbook_qa_eng"
    more = ("--data_dir", str(data), "--prompts", "plain")
    predict(config, tmp_path / "one", *more, datasets=datasets)
    try:
        assert predict(config, tmp_path / "ray", *more, "--engine", "ray", datasets=datasets) == 0
    finally:
        ray.shutdown()
    for task in datasets.split(","):
        assert same(tmp_path / "one", tmp_path / "ray", task)
    assert [row["id"] for row in rows(tmp_path / "ray", "longbook_qa_eng") if "error" in row] == [
        "5"
    ]
