"""`eval.py`: published forms, means, failures, comparison, errors."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark import eval as evaluate
from benchmark.compare import compare
from benchmark.scores import mean_and_error, score_folder
from benchmark.tasks.infinitebench import SCRIPT_6
from benchmark.tasks.longbench import E_TASKS, ENGLISH_15, ENGLISH_16

ROOT = Path(evaluate.__file__).parents[1]


def write(folder, task, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def own_row(i, pred, answer, **more):
    fields = {"id": str(i), "index": i, "pred": pred, "answers": [answer], "all_classes": None}
    return fields | {"length": 10} | more


def score(folder):
    return score_folder(folder).tasks


def test_own_form(tmp_path):
    rows = [
        own_row(0, "red", "red"),
        own_row(1, "red", "blue"),
        own_row(2, "", "x", error="OOM: no room"),
    ]
    write(tmp_path, "hotpotqa", rows)
    scored = score(tmp_path)["hotpotqa"]
    assert (scored.n, scored.failures) == (3, 1)
    assert scored.score == pytest.approx(100 / 3)
    assert scored.se == pytest.approx(100 / 3)


def test_published_infinitebench_form_is_read_row_by_row(tmp_path):
    rows = [{"id": 0, "prediction": "17", "ground_truth": "17"}] * 3
    rows += [{"id": 0, "prediction": None, "ground_truth": "17"}]
    write(tmp_path, "preds_passkey", rows)
    assert (score(tmp_path)["passkey"].score, score(tmp_path)["passkey"].n) == (75.0, 4)


def test_published_infllm_form_has_no_ids(tmp_path):
    rows = [{"pred": p, "answers": ["A"], "all_classes": None, "length": 3} for p in "AB"]
    write(tmp_path, "qasper", rows)
    assert score(tmp_path)["qasper"].n == 2


def test_a_torn_last_row_is_left_out_and_a_damaged_one_refused(tmp_path, capsys):
    write(tmp_path, "passkey", [own_row(0, "17", "17")])
    with (tmp_path / "passkey.jsonl").open("a") as file:
        file.write('{"id": "1", "pre')
    assert score(tmp_path)["passkey"].n == 1
    with (tmp_path / "passkey.jsonl").open("a") as file:
        file.write("\n{}\n")
    assert evaluate.main(["--dir_path", str(tmp_path)]) == 2
    assert "passkey.jsonl, line 2 is not JSON" in capsys.readouterr().err


def test_rows_of_ranks_are_scored_together(tmp_path):
    write(tmp_path, "passkey", [own_row(0, "17", "17")])
    (tmp_path / "passkey.jsonl").rename(tmp_path / "passkey.jsonl.0-of-2")
    (tmp_path / "passkey.jsonl.1-of-2").write_text(json.dumps(own_row(1, "1", "17")) + "\n")
    assert score(tmp_path)["passkey"].score == 50.0


def test_class_names_may_be_python_text(tmp_path):
    write(tmp_path, "trec", [own_row(0, "Food", "Food") | {"all_classes": "['Food', 'Date']"}])
    assert score(tmp_path)["trec"].score == 100.0


def test_means_over_15_and_16_tasks(tmp_path):
    for task in ENGLISH_16:
        right = {"trec": "Food", "passage_retrieval_en": "Paragraph 3", "passage_count": "3"}
        answer = right.get(task, "word")
        prediction = "none" if task == "passage_count" else answer
        write(
            tmp_path, task, [own_row(i, prediction, answer, all_classes=["Food"]) for i in range(2)]
        )
    means = {mean.name.split(" tasks")[0]: mean for mean in score_folder(tmp_path).means}
    assert set(ENGLISH_16) - set(ENGLISH_15) == {"passage_count"}
    assert means["LongBench, 15"].score == pytest.approx(100, abs=1e-4)
    assert means["LongBench, 16"].score == pytest.approx(100 * 15 / 16, abs=1e-4)
    assert means["LongBench, all 21"].score is None
    assert "vcsum" in means["LongBench, all 21"].missing


def test_longbench_e_is_the_mean_of_its_buckets(tmp_path):
    rows = [own_row(0, "a b", "a b", length=100), own_row(1, "x", "y", length=5000)]
    rows += [own_row(2, "x", "y", length=6000), own_row(3, "q", "q", length=9000)]
    for task in E_TASKS:
        alone = own_row(0, "Paragraph 3", "Paragraph 3", length=100)
        write(tmp_path, f"{task}_e", rows if task == "qasper" else [alone])
    run = score_folder(tmp_path)
    assert run.tasks["qasper_e"].buckets == {"0-4k": 100.0, "4-8k": 0.0, "8k+": 100.0}
    assert run.tasks["qasper_e"].score == 50.0
    (mean,) = [mean for mean in run.means if mean.name.startswith("LongBench-E")]
    assert mean.missing == ()


def test_standard_error():
    assert mean_and_error([1, 2, 3, 4]) == (2.5, pytest.approx(math.sqrt(5 / 3 / 4)))
    assert mean_and_error([7]) == (7, None)


def test_tables_are_written_and_named(tmp_path, capsys):
    for task in SCRIPT_6:
        write(tmp_path / "d", task, [own_row(0, "A.", "A")])
    write(tmp_path / "d", "code_debug", [own_row(0, "A.", "f") | {"answers": ["f", "A"]}])
    write(tmp_path / "d", "math_find", [own_row(0, "3", 3)])
    assert evaluate.main(["--dir_path", str(tmp_path / "d")]) == 0
    shown = capsys.readouterr().out
    assert "| InfiniteBench, 6 tasks (InfLLM's script, EM-LLM's table) | " in shown
    assert (tmp_path / "d" / "result.md").read_text() in shown
    data = json.loads((tmp_path / "d" / "result.json").read_text())
    assert data["scores"]["math_find"] == 100.0
    assert data["means"][0]["tasks"] == list(SCRIPT_6)


def test_comparison_is_paired_by_sample_and_seeded(tmp_path):
    for name, right in (("one", 20), ("two", 32)):
        rows = [own_row(i, "17" if i < right else "1", "17") for i in range(40)]
        write(tmp_path / name, "passkey", rows if name == "one" else rows[:36])
        write(tmp_path / name, "hotpotqa", [own_row(i, "a b", "a b") for i in range(5)])
    runs = [score_folder(tmp_path / name) for name in ("one", "two")]
    rows = {row.task: row for row in compare(*runs)}
    assert rows["passkey"].n == 36
    assert rows["passkey"].unpaired == 4
    assert rows["passkey"].difference == pytest.approx(100 * 12 / 36)
    assert rows["passkey"].sure
    assert not rows["hotpotqa"].sure
    low, high = rows["passkey"].low, rows["passkey"].high
    # The interval of a share of 12 in 36: about two standard errors of 8 points.
    assert low == pytest.approx(100 / 3 - 15.5, abs=3)
    assert high == pytest.approx(100 / 3 + 15.5, abs=3)
    assert rows["mean of 2 tasks"].difference == pytest.approx(100 / 6)
    assert compare(*runs) == list(rows.values())


def test_comparison_from_the_command_line(tmp_path, capsys):
    for name in ("one", "two", "three"):
        write(tmp_path / name, "passkey", [own_row(i, "17", "17") for i in range(4)])
    folders = [str(tmp_path / name) for name in ("one", "two", "three")]
    assert evaluate.main(["--compare", *folders, "--output_dir_path", str(tmp_path / "o")]) == 0
    assert "| task | one | two | three |" in capsys.readouterr().out
    data = json.loads((tmp_path / "o" / "compare.json").read_text())
    assert data["differences"]["three"][0]["difference"] == 0.0


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    write(tmp_path / "d", "passkey", [own_row(i, "17", "17") for i in range(4)])
    picture = tmp_path / "p.png"
    assert evaluate.main(["--dir_path", str(tmp_path / "d"), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_gpt4_rule_of_math_calc_follows_the_folder_or_the_option(tmp_path):
    write(tmp_path / "gpt4", "preds_math_calc", [{"id": 0, "pred": "9 1 4", "label": [1, 4]}])
    folder = str(tmp_path / "gpt4")
    for more, expected in (((), 100.0), (("--model_name", "yi"), 0.0)):
        assert evaluate.main(["--dir_path", folder, *more]) == 0
        data = json.loads((tmp_path / "gpt4" / "result.json").read_text())
        assert data["scores"]["math_calc"] == expected


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "holds no predictions"),
        ({"passkye": "{}\n"}, "did you mean 'passkey'"),
        ({"passkey": "[]\n"}, "one object is expected"),
        ({"passkey": '{"id": 1, "answers": ["1"]}\n'}, "has no 'pred' or 'prediction'"),
        ({"passkey": '{"pred": "1"}\n'}, "has no 'answers'"),
        ({"passkey": "{}\n", "preds_passkey": "{}\n"}, "are one task"),
    ],
)
def test_bad_folders_give_one_message_and_exit_code_2(tmp_path, capsys, files, says):
    for name, text in files.items():
        (tmp_path / f"{name}.jsonl").write_text(text)
    assert evaluate.main(["--dir_path", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("task", "row", "says"),
    [
        ("qasper", {"answers": 5}, "row with id '0': its answers 5 are not of the form"),
        ("lcc", {"answers": [3]}, "are not of the form"),
        ("passage_retrieval_en", {"answers": ["none"]}, "must read"),
        ("trec", {"all_classes": "foo("}, "row 1: all_classes 'foo(' is no list"),
        ("trec", {"all_classes": 5}, "all_classes 5 is no list"),
        ("qasper_e", {"length": "abc"}, "length 'abc': not a number"),
        ("qasper_e", {"length": math.nan}, "not a number"),
        ("math_calc", {"answers": []}, "not of the form"),
        ("code_debug", {"answers": ["f"]}, "not of the form"),
        ("longbook_choice_eng", {"answers": [1, 2], "pred": "The answer is B"}, "not of"),
    ],
)
def test_malformed_labels_are_reported_with_their_row(tmp_path, capsys, task, row, says):
    write(tmp_path, task, [own_row(0, "said", "meant") | row])
    assert evaluate.main(["--dir_path", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err


def test_an_answer_need_not_stand_in_a_list(tmp_path):
    rows = [{"id": 0, "prediction": "Bob Dylan", "ground_truth": "Bob Dylan"}]
    write(tmp_path, "preds_hotpotqa", rows)
    assert score(tmp_path)["hotpotqa"].score == 100


def test_a_task_without_a_row_is_missing(tmp_path, capsys):
    for task in ENGLISH_15:
        write(tmp_path, task, [] if task == "qasper" else [own_row(0, "a", "a", error="none")])
    assert evaluate.main(["--dir_path", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "nan" not in told
    assert "Without any prediction yet, and not scored: qasper." in told
    json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)


def test_a_folder_in_the_place_of_a_file(tmp_path, capsys):
    (tmp_path / "qasper.jsonl").mkdir()
    assert evaluate.main(["--dir_path", str(tmp_path)]) == 2
    assert "qasper.jsonl: Is a directory" in capsys.readouterr().err


def test_a_missing_folder_is_named(capsys):
    assert evaluate.main(["--dir_path", "no/such"]) == 2
    assert "no/such is not a folder" in capsys.readouterr().err


def test_runs_as_a_file_from_any_folder(tmp_path):
    write(tmp_path / "d", "passkey", [own_row(0, "17", "17")])
    command = [sys.executable, str(ROOT / "benchmark" / "eval.py"), "--dir_path", "d"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| passkey | infinitebench | 100.00 |" in done.stdout
