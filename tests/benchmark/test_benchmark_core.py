"""The harness on the package itself: a tiny model with random weights, all four attention types."""

from __future__ import annotations

import json

import pytest

from benchmark import pred
from benchmark.settings import RunOptions, load_task
from tests.checkpoints import script

SETTINGS = {
    "origin": "",
    "infinite-lm": "  n_init: 4\n  n_local: 64\n",
    "stream-lm": "  n_init: 4\n  n_local: 64\n",
    "inf-llm": "  n_init: 4\n  n_local: 64\n  block_size: 16\n  exc_block_size: 32\n  topk: 2\n"
    "  max_cached_block: 4\n",
}
TASK = "longbook_qa_eng"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    script().main(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    books = ["The first book says little. " * 12, "A second book, and a longer one. " * 14]
    rows = [
        {"id": i, "context": books[b], "input": question, "answer": ["x"], "options": []}
        for i, (b, question) in enumerate([(0, "Who?"), (1, "What is it?"), (0, "Where, then?")])
    ]
    (folder / f"{TASK}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def config(folder, checkpoint, kind):
    path = folder / f"{kind}.yaml"
    path.write_text(
        f"model:\n  type: {kind}\n  path: {checkpoint}\n{SETTINGS[kind]}chunk_size: 96\n"
    )
    return path


def predict(path, folder, data, *more):
    arguments = ["--config_path", str(path), "--output_dir_path", str(folder), "--datasets", TASK]
    arguments += ["--data_dir", str(data), "--prompts", "plain", *more]
    assert pred.main(arguments) == 0
    lines = (folder / f"{TASK}.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if "seconds" not in key}
        for line in lines
    ]


@pytest.mark.parametrize("kind", SETTINGS)
def test_answers_equal_generate_on_the_whole_prompt(tmp_path, checkpoint, data, kind):
    import inf_llm
    from inf_llm.config import load_config

    path = config(tmp_path, checkpoint, kind)
    rows = predict(path, tmp_path / "o", data)
    read = load_config(path)
    model, tokenizer = inf_llm.load(read)
    options = RunOptions(read, tmp_path, (TASK,), data=data, prompts="plain")
    for row, instance in zip(rows, load_task(TASK, options, tokenizer).instances, strict=True):
        ids = tokenizer(instance.prompt.text, return_tensors="pt")
        generated = model.generate(**ids, max_new_tokens=32, do_sample=False)[
            0, ids.input_ids.shape[1] :
        ]
        assert "error" not in row
        assert row["pred"] == tokenizer.decode(generated, skip_special_tokens=True)
        assert row["token_length"] == ids.input_ids.shape[1]


def test_two_ranks_and_a_resumed_run_equal_one_process(tmp_path, checkpoint, data):
    path = config(tmp_path, checkpoint, "inf-llm")
    whole = predict(path, tmp_path / "one", data)
    assert whole[0]["memory"]["tokens"] > 0
    part = tmp_path / "part"
    predict(path, part, data, "--limit", "1")
    assert predict(path, part, data) == whole
    arguments = ["--config_path", str(path), "--output_dir_path", str(tmp_path / "two")]
    arguments += ["--datasets", TASK, "--data_dir", str(data), "--prompts", "plain"]
    for rank in "10":
        assert pred.main([*arguments, "--rank", rank, "--world_size", "2"]) == 0
    assert predict(path, tmp_path / "two", data) == whole
