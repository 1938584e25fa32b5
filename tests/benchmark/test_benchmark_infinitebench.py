"""InfiniteBench's metrics: the official rules by example, odd cases included, and real files."""

from __future__ import annotations

import random

import pytest

from benchmark.metrics import infinitebench
from benchmark.metrics.rouge_lsum import rouge_lsum
from benchmark.scores import score_folder
from inf_llm.errors import SettingsError

PUBLISHED_GPT4 = {
    "passkey": 100.0,
    "kv_retrieval": 89.0,
    "math_find": 60.0,
    "longbook_choice_eng": 67.25,
    "longbook_qa_eng": 22.44,
    "code_run": 23.25,
}


@pytest.mark.parametrize(
    ("task", "prediction", "label", "expected"),
    [
        ("passkey", "The pass key is 71432.", "71432", 1),
        ("passkey", "It is 7 1432", ["71432"], 0),
        ("passkey", "", ["71432"], 0),
        ("number_string", " 0012, or 5", "0012", 1),
        ("kv_retrieval", '"k": "v-1"', "v-1", 1),
        ("kv_retrieval", "xv-1", ["v-1"], 0),
        ("code_run", "so `f(2)` is 4.\nThe return value is: 4.", 4, 1),
        ("code_run", "-8", [-8], 1),
        ("code_run", "four", 4, 0),
        ("code_run", " . ", 4, 0),
        ("code_debug", "B. foo", ["foo", "B"], 1),
        ("code_debug", "B) foo", ["foo", "B"], 0),
        ("code_debug", "The answer is: foo", ["foo", "B"], 1),
        ("code_debug", "The error is:", ["foo", "B"], 0),
        ("code_debug", "answer: Option B", ["foo", "B"], 1),
        ("code_debug", "I answer B", ["foo", "B"], 0),
        ("longbook_choice_eng", "B. A name", ["A name", "B"], 1),
        ("longbook_choice_eng", "A", ["A name", "B"], 0),
        ("longbook_choice_eng", "", ["A name", "B"], 0),
        ("longbook_choice_eng", " B it is", ["A name", "B"], 1),
        ("longbook_choice_eng", "some name", ["some name", "B"], 1),
        ("code_debug", " B. foo", ["foo", "B"], 1),
        ("math_calc", "1 4", [[1, 4, 8, 2]], 0.5),
        ("longbook_choice_eng", "So the answer is B", ["A name", "B"], 1),
        ("longbook_choice_eng", "The option is C", ["A name", "B"], 0),
        ("longbook_choice_eng", "I say: (no) B", ["A name", "B"], 1),
        ("longbook_choice_eng", "It ends in answer:", ["A name", "B"], 0),
        ("longdialogue_qa_eng", "It is Bob!", ["BOB", "ROBERT"], 1),
        ("longdialogue_qa_eng", "Robert", ["BOB", "ROBERT"], 0),
        ("longbook_qa_eng", "the red fox", ["Red Fox", "dog"], 1),
        ("longbook_qa_chn", "。猫 狗", ["狗"], 2 / 3),
        ("math_find", "It is 88, not 89", 88, 1),
        ("math_find", "88.0", 88, 0),
        ("math_find", "0.5", 0.5, 1),
        ("math_find", "none", [3], 0),
        ("math_calc", "[1, 4, 9]", [1, 4, 8, 2], 0.5),
        ("math_calc", "007 " + "9" * 6000, [7, 8], 0.5),
    ],
)
def test_official_rules(task, prediction, label, expected):
    assert infinitebench.score(task, prediction, label) == pytest.approx(expected)


def test_gpt4_answers_to_math_calc_lose_their_first_number():
    assert infinitebench.score("math_calc", "9 1 4", [1, 4], skip_first_number=True) == 1.0
    assert infinitebench.score("math_calc", "9 1 4", [1, 4]) == 0.0


def test_a_label_that_is_no_number_is_refused():
    with pytest.raises(SettingsError, match="'88' is not a number"):
        infinitebench.score("math_find", "88", "88")


@pytest.mark.parametrize(
    ("prediction", "summary", "expected"),
    [
        ("the cat", "The cat!", 1.0),
        ("", "a", 0.0),
        ("a\nb", "b\na", 1.0),
        ("a b", "b a", 0.5),
        ("x a x", "a", 0.5),
        ("a a", "a\na", 1.0),
    ],
)
def test_rouge_lsum_by_hand(prediction, summary, expected):
    assert rouge_lsum(prediction, summary) == pytest.approx(expected)


def test_rouge_lsum_equals_the_package():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeLsum"])
    rng = random.Random(0)
    words = [
        "the",
        "cat",
        "sat,",
        "on",
        "a",
        "Mat.",
        "don't",
        "12",
        "x-ray",
        "\n",
        "\n\n",
        "é",
        "fox",
    ]
    for _ in range(300):
        prediction, summary = (" ".join(rng.choices(words, k=rng.randint(0, 30))) for _ in range(2))
        assert (
            rouge_lsum(prediction, summary)
            == scorer.score(summary, prediction)["rougeLsum"].fmeasure
        )


def test_published_predictions_give_the_published_table(data_folder):
    folder = data_folder / "infinitebench" / "gpt4_predictions"
    if not folder.is_dir():
        pytest.skip("no published predictions in the data folder")
    scored = score_folder(folder).tasks
    for task, published in PUBLISHED_GPT4.items():
        assert scored[task].score == pytest.approx(published, abs=0.1), task
