"""Saved conversations: what is read back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inf_llm.chat.turns import ASSISTANT, USER, Document, Transcript, Turn, load, save
from inf_llm.errors import TextError

SAID = Transcript(
    (Turn(USER, "Who?\n", (Document("d.txt", 'A "text" \N{SNOWMAN}.'),)), Turn(ASSISTANT, "He.")),
    (Document("e.txt", "Another."),),
)


def test_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    save(file, Transcript())
    save(file, SAID)
    assert load(file) == SAID
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.json"
    save(file, SAID)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(TextError, match=r"c\.json: cannot be written: No space left"):
        save(file, Transcript())
    assert load(file) == SAID
    assert list(tmp_path.iterdir()) == [file]


def test_fastchat_files(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    messages = [["Human", "example"], ["Assistant", "example"], ["Human", "a"], ["Assistant", "b"]]
    data = {"template_name": "one_shot", "roles": ["Human", "Assistant"], "messages": messages}
    file.write_text(json.dumps(data | {"offset": 2, "system_message": ""}))
    assert load(file).turns == (Turn(USER, "a"), Turn(ASSISTANT, "b"))


FORM = {"form": "inf-llm chat"}
WRONG: dict[str, tuple[Any, str]] = {
    "list": ([], "form = 'inf-llm chat'"),
    "other object": ({"turns": []}, "form = 'inf-llm chat'"),
    "turns": (FORM | {"turns": {}}, "turns must be a list"),
    "turn": (FORM | {"turns": ["hello"]}, "documents must be a list"),
    "no content": (FORM | {"turns": [{"role": "user"}]}, r"turns\[0\]\.content must be a text"),
    "role": (FORM | {"turns": [{"role": "god", "content": ""}] * 2}, "turn 1 is of role 'god'"),
    "no answer": (FORM | {"turns": [{"role": "user", "content": "x"}]}, "has no answer"),
    "document": (FORM | {"documents": [{"name": "x", "text": 3}]}, r"documents\[0\]\.text must"),
    "half a character": (FORM | {"documents": [{"name": "x", "text": "\ud800"}]}, "UTF-8"),
    "fastchat": ({"template_name": "x", "roles": [], "messages": [["a"]]}, r"messages\[0\]"),
    "fastchat offset": ({"template_name": "x", "roles": [], "messages": 3}, "must be a list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_content(tmp_path: Path, name: str) -> None:
    data, says = WRONG[name]
    file = tmp_path / "c.json"
    file.write_text(json.dumps(data))
    with pytest.raises(TextError, match=rf"c\.json: is not a saved conversation: .*{says}"):
        load(file)


@pytest.mark.parametrize("content", [b"", b"{", b"\x89PNG\x00", b"[" * 100_000, b"NaN"])
def test_wrong_bytes(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "c.json"
    file.write_bytes(content)
    with pytest.raises(TextError, match="is not a saved conversation"):
        load(file)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="No such file"):
        load(tmp_path / "no.json")
    with pytest.raises(TextError, match="Is a directory"):
        load(tmp_path)
    with pytest.raises(TextError, match="cannot be written: No such file"):
        save(tmp_path / "no" / "c.json", SAID)
