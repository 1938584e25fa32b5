"""LongBench's metrics against hand-counted values and against a second computation."""

from __future__ import annotations

import ast
import json
import random

import independent_longbench
import pytest

from benchmark.metrics import longbench
from inf_llm.errors import MissingExtraError
from inf_llm.optional import need

CLASSES = ("Food", "Date", "Other entity", "Entity", "Letter like a-z")


@pytest.mark.parametrize(
    ("task", "prediction", "answers", "expected"),
    [
        ("hotpotqa", "The Answer!", ["answer"], 1.0),
        ("hotpotqa", "red green", ["red blue", "green red"], 1.0),
        ("qasper", "red green", ["red blue"], 0.5),
        ("qasper", "", ["red"], 0.0),
        ("qasper", "the", ["a"], 0.0),
        ("triviaqa", "\n\nParis\nQuestion: next", ["Paris"], 1.0),
        ("passage_count", "There are 3, or 4 of 3", ["3"], 2 / 3),
        ("passage_count", "none", ["3"], 0.0),
        ("passage_retrieval_en", "Paragraph 12", ["Paragraph 12"], 1.0),
        ("passage_retrieval_en", "Paragraph 1 or 12", ["Paragraph 12"], 0.5),
        ("passage_retrieval_zh", "段落7", ["段落7"], 1.0),
        ("lcc", "\n# comment\n```\nreturn x\nreturn y", ["return x"], 1.0),
        ("lcc", "abcd", ["bcde"], 0.75),
        ("lcc", "", [""], 1.0),
        ("trec", "Food", ["Food"], 1.0),
        ("trec", "Food or Date", ["Food"], 0.5),
        ("trec", "Other entity Entity", ["Other entity"], 0.5),
        ("lsht", "Letter", ["Food"], 0.0),
        ("samsum", "", ["a b"], 0.0),
        ("samsum", "...", ["a b"], 0.0),
    ],
)
def test_hand_counted(task, prediction, answers, expected):
    assert longbench.score(task, prediction, answers, CLASSES) == pytest.approx(expected)


def test_rouge_l_is_over_sets_of_words():
    pytest.importorskip("rouge")
    # "a b" of 3 and 2 different words: recall 2/2, precision 2/3.
    assert longbench.rouge_l("a b c", "a b") == pytest.approx(0.8, abs=1e-6)
    assert longbench.rouge_l("a a a a", "a") == pytest.approx(1.0, abs=1e-6)


def test_classes_are_dropped_as_officially_while_walking():
    names = ("ab", "b", "a", "abc")
    # Walking drops "ab", skips "b", drops "a": two names stay.
    assert longbench.classification("abc", "abc", names) == 1 / 2


def test_similarity_variants_agree_on_equal_lines_and_are_whole_percents():
    pytest.importorskip("rapidfuzz")
    for metric in (longbench.code_similarity, longbench.code_similarity_rapidfuzz):
        assert metric("return x", "return x") == 1.0
        assert metric("return xy", "return x") == 0.94
    assert longbench.score("lcc", "abcd", ["bcde"], similarity="rapidfuzz") == 0.75


@pytest.mark.parametrize(
    ("length", "bucket"), [(0, "0-4k"), (3999, "0-4k"), (4000, "4-8k"), (8000, "8k+")]
)
def test_length_buckets(length, bucket):
    assert longbench.length_bucket(length) == bucket


def test_absent_package_is_asked_for_by_name():
    with pytest.raises(
        MissingExtraError, match=r"'no_such_package'.*pip install 'inf-llm\[eval\]'"
    ):
        need("no_such_package", "this metric")


def perturbed(answer: str, other: str, classes, rng: random.Random) -> list[str]:
    """What a model might have said in place of the answer."""
    words = answer.split()
    shuffled = rng.sample(words, len(words))
    return [
        answer,
        "",
        f"\n{answer.upper()}.",
        f"The answer is: {answer}\nQuestion: 12 {other[:200]}",
        answer[: len(answer) // 2],
        " ".join(shuffled),
        " ".join(w for w in words if rng.random() < 0.6),
        "".join(c for c in answer if rng.random() < 0.8),
        other,
        f"{answer} {other}",
        f"# {answer}\n{answer[1:]} {rng.randint(1, 30)}",
        " ".join(rng.sample(list(classes), min(3, len(classes)))) + " " + answer,
        "，".join(words) + "。",  # noqa: RUF001
    ]


SUMMARIES = ("gov_report", "multi_news", "vcsum")


@pytest.mark.parametrize("task", tuple(longbench.METRICS))
def test_equal_to_a_second_computation_on_real_samples(task, data_folder):
    check_against_second_computation(task, data_folder, 1 if task in SUMMARIES else None)


@pytest.mark.slow
@pytest.mark.parametrize("task", SUMMARIES)
def test_equal_to_a_second_computation_on_all_summaries(task, data_folder):
    check_against_second_computation(task, data_folder, None)


def check_against_second_computation(task, data_folder, limit):
    pytest.importorskip("rouge")
    pytest.importorskip("jieba")
    path = data_folder / "longbench" / f"{task}.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path.name} in the data folder")
    samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rng = random.Random(task)
    for i, sample in enumerate(samples[:limit]):
        classes = sample["all_classes"] or []
        classes = ast.literal_eval(classes) if isinstance(classes, str) else classes
        other = samples[i - 1]["answers"][0]
        for prediction in perturbed(sample["answers"][0], other, classes, rng):
            ours = longbench.score(task, prediction, sample["answers"], classes)
            theirs = independent_longbench.score(task, prediction, sample["answers"], classes)
            assert ours == pytest.approx(theirs, abs=1e-9), (i, prediction)
