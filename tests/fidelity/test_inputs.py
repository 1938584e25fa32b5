"""inf_llm/fidelity/inputs.py: rules from the words of the command line."""

from __future__ import annotations

import pytest

from inf_llm.config import SHIPPED_CONFIGS, load_config
from inf_llm.fidelity.inputs import read_rules


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("demo-inf-llm", "demo-inf-llm topk=4"),
        (str(SHIPPED_CONFIGS / "demo-inf-llm.yaml"), "demo-inf-llm topk=4"),
        ("qwen2.5-0.5b", "qwen2.5-0.5b topk=4"),
    ],
)
def test_a_rule_is_called_as_its_file_and_settings(config: str, name: str) -> None:
    overrides = ["model.topk=4"]
    first = load_config(config, overrides)
    rules = read_rules(config, first, overrides, ["topk=2"])
    assert [rule.name for rule in rules] == [name, "topk=2"]
    assert [rule.settings.topk for rule in rules] == [4, 2]  # type: ignore[attr-defined]
