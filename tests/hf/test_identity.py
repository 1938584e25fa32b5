"""What a memory belongs to: every field that gives its keys their meaning."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.errors import UnsupportedInputError
from inf_llm.hf import identity
from inf_llm.hf.identity import model_identity, note_files, tokenizer_identity, weights_digest
from tests.hf.tiny import LONG, tiny
from tests.tiny import tiny_tokenizer


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_copy_is_the_same_model() -> None:
    model = tiny()
    assert model_identity(copy.deepcopy(model)) == model_identity(model)


def test_one_weight_in_the_last_bit() -> None:
    model = tiny()
    before = weights_digest(model)
    with torch.no_grad():
        weight = list(model.parameters())[-1].view(-1)
        weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    assert weights_digest(model) != before


def test_a_replaced_weight() -> None:
    model = tiny()
    before = weights_digest(model)
    weight = next(iter(model.parameters()))
    weight.data = weight.data + 1
    assert weights_digest(model) != before


def test_what_only_says_how_it_runs_is_no_part_of_it() -> None:
    model = inf_llm.patch(tiny(), type="inf-llm", **LONG)
    before = model_identity(model)
    inf_llm.patch(inf_llm.unpatch(model), type="inf-llm", **LONG, kernel="reference")
    model.config._name_or_path = "elsewhere"
    assert model_identity(model) == before


def test_settings_are_part_of_it() -> None:
    model = inf_llm.patch(tiny(), type="inf-llm", **LONG)
    assert model_identity(model)["attention"]["type"] == "inf-llm"
    assert model_identity(model)["attention"]["topk"] == LONG["topk"]
    assert model_identity(inf_llm.unpatch(model))["attention"] is None


def test_tokenizer_and_template() -> None:
    one, other = tiny_tokenizer(), tiny_tokenizer()
    assert tokenizer_identity(one) == tokenizer_identity(other)
    other.chat_template = "{{ messages }}"
    assert tokenizer_identity(other)["chat_template"] != tokenizer_identity(one)["chat_template"]
    other.add_tokens(["<new>"])
    assert tokenizer_identity(other)["tokenizer"] != tokenizer_identity(one)["tokenizer"]


def _counting(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    real = identity._digest
    monkeypatch.setattr(identity, "_digest", lambda tensors: calls.append(0) or real(tensors))
    return calls


def test_weights_are_read_once_while_they_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, model = _counting(monkeypatch), tiny()
    assert weights_digest(model) == weights_digest(model)
    assert len(calls) == 1


def test_the_digest_of_files_is_kept_between_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls, file = _counting(monkeypatch), tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    for _ in range(2):
        model = tiny()
        note_files(model, [file])
        weights_digest(model)
    assert len(calls) == 1
    file.write_bytes(b"others!!")  # of another length
    note_files(model := tiny(), [file])
    weights_digest(model)
    assert len(calls) == 2
    with torch.no_grad():  # trained since it was loaded
        next(iter(model.parameters())).add_(1)
    weights_digest(model)
    assert len(calls) == 3


def test_a_damaged_note_of_digests_is_not_believed(cache_home: Path, tmp_path: Path) -> None:
    (cache_home / "inf-llm").mkdir()
    (cache_home / "inf-llm" / "weights.json").write_text("[]")
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    model = tiny()
    plain = weights_digest(copy.deepcopy(model))
    note_files(model, [file])
    assert weights_digest(model) == plain


def test_weights_that_are_elsewhere() -> None:
    with pytest.raises(UnsupportedInputError, match="is not in memory"):
        weights_digest(tiny().to("meta"))


def test_weights_that_are_changed_behind_their_version() -> None:
    """As optimizers and merged adapters do; neither the pointer nor the version tells."""
    model = tiny()
    before = weights_digest(model)
    weight = list(model.parameters())[-1]
    weight.data += 0.5
    assert weights_digest(model) != before
