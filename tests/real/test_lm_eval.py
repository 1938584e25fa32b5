"""lm-evaluation-harness scores a served model as it does the same model in its own process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra 'serve'")
pytest.importorskip("lm_eval", reason="needs the extra 'lm-eval'")
pytest.importorskip("tenacity", reason="needs pip install 'lm_eval[api]'")

from benchmark import lm_eval_adapter
from inf_llm.config import SHIPPED_CONFIGS
from inf_llm.demo.trial import haystack_text
from inf_llm.hf.source import DEMO
from tests.real.models import MODELS
from tests.serve.conftest import start

Write = Callable[..., Path]
FORMAT = {"model.dtype": "float32"}
ROWS = [
    ("The grass is", [" green", " a number", " seven"]),
    ("Two and two make", [" four", " the of", " Napoleon"]),
    ("Pierre went to", [" Moscow.", " is are", " the war and never came back."]),
]


@pytest.fixture(scope="module", autouse=True)
def _prepared() -> Iterator[None]:
    """The adapter is registered, and nothing is asked of a hub."""
    lm_eval_adapter.register()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        yield


@pytest.fixture
def tasks(tmp_path: Path) -> Any:
    """Choices after short and long texts, and the likelihood of a text that goes on."""
    long = haystack_text()[:9_000]
    rows = [{"text": t, "choices": c} for t, c in ROWS]
    rows += [{"text": f"{long} {t}", "choices": c} for t, c in ROWS[:1]]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "endings",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": 0,
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "endings.yaml").write_text(json.dumps(task))  # YAML has JSON in it
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(tmp_path), include_defaults=False)


def _scores(tasks: Any, kind: str, **arguments: Any) -> list[Any]:
    """Log-likelihoods of all endings, and whether each is what a greedy answer would say."""
    import lm_eval

    found = lm_eval.simple_evaluate(
        model=kind, model_args=arguments, tasks=["endings"], task_manager=tasks, batch_size=1
    )
    samples = sorted(found["samples"]["endings"], key=lambda sample: sample["doc_id"])
    return [tuple(reply) for sample in samples for reply in sample["filtered_resps"]]


@pytest.mark.parametrize("name", ["demo", "smollm2", "qwen"])
@pytest.mark.parametrize("kind", ["inf-llm", "origin"])
def test_endings_have_the_same_likelihood(
    write_config: Write, tasks: Any, name: str, kind: str
) -> None:
    if name == "demo":
        config = SHIPPED_CONFIGS / f"demo-{kind}.yaml"
        folder = DEMO
    else:
        config, folder = write_config(name, kind), MODELS[name].folder
    here = _scores(tasks, "inf-llm", config=str(config), max_length=8192, **FORMAT)
    server = start(config, *(f"{key}={value}" for key, value in FORMAT.items()))
    try:
        there = _scores(
            tasks,
            "local-completions",
            base_url=f"{server.address}/v1/completions",
            model=server.model,
            tokenizer=str(folder),
            add_bos_token=True,  # where the tokenizer has one: in its own process lm_eval adds it
            max_length=8192,
        )
    finally:
        server.stop()
    likelihoods, greedy = zip(*here, strict=True)
    assert len(likelihoods) == 3 * len(ROWS) + 3
    assert [one for one, _ in there] == pytest.approx(likelihoods, abs=1e-3)
    assert [one for _, one in there] == list(greedy)
