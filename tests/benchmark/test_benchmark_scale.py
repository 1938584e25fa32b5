"""benchmark/scale.py: a long reading, beside what was planned for it."""

from __future__ import annotations

from benchmark.scale import measure


def test_a_scale_run_reports_what_it_held() -> None:
    facts = measure(40_000, chunk=2000)
    assert facts["tokens"] == 40_000
    assert len(facts["parts"]) == 20
    assert len({part["device_kv_bytes"] for part in facts["parts"][2:]}) == 1
    assert facts["counted_host_bytes"] > 0.5 * facts["predicted_host_bytes"]
