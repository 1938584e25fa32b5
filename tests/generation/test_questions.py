"""Questions from a file, answers to a file that can be gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inf_llm.errors import TextError
from inf_llm.generation.questions import Question, answering, read_questions


def test_texts_and_objects(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('"One?"\n\n{"question": "Two?", "id": 2}\r\n')
    assert read_questions(file) == [Question("One?", {}), Question("Two?", {"id": 2})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no questions"),
        (b'"a"\n{"q": 1}', "line 2: has no question"),
        (b'"a"\nWhat?', "line 2: is not JSON"),
        (b'""', "line 1"),
        (b'{"question": "a", "answer": "gold"}', "line 1: 'answer' is a key that is written"),
        (b"\xff\xfe", "is not text in UTF-8"),
        (b"[" * 100_000, "line 1: is not JSON"),
    ],
)
def test_wrong_questions_are_named_by_their_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "q.jsonl"
    file.write_bytes(content)
    with pytest.raises(TextError, match=message):
        read_questions(file)


ASKED = [Question("One?", {"id": 1}), Question("Two?", {}), Question("One?", {"id": 3})]


def test_answers_are_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with answering(path, ASKED, "war") as answers:
        answers.add(2, "three")
    path.write_bytes(path.read_bytes() + b'{"index": 0, "quest')
    with answering(path, ASKED, "war") as answers:
        assert [at for at, _ in answers.left()] == [0, 1]
        answers.add(0, "one")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["index"], row["answer"], row["id"]) for row in rows] == [
        (2, "three", 3),
        (0, "one", 1),
    ]


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for content in ('{"index": 0, "question": "Other?", "answer": ""}\n', "my notes\n", "[1]\n"):
        path.write_text(content)
        with pytest.raises(TextError, match="line 1: is no answer"), answering(path, ASKED, "war"):
            pass
        assert path.read_text() == content


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with (
        answering(path, ASKED, "war"),
        pytest.raises(TextError, match="another process"),
        answering(path, ASKED, "war"),
    ):
        pass


def test_answers_about_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with answering(path, ASKED, "war") as answers:
        answers.add(0, "one")
    with pytest.raises(TextError, match="about another text"), answering(path, ASKED, "peace"):
        pass


def test_answers_to_a_folder_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(TextError, match="folder: cannot be written"), answering(path, ASKED, "war"):
        pass
