"""`benchmark/beside`: what each subject says of the same document."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmark.beside.base import Refused, Subject
from benchmark.beside.job import Job
from benchmark.beside.llama_server import LlamaServer, StretchedServer
from benchmark.beside.subjects import make
from benchmark.beside.torch_subjects import Package, Retrieval, Transformers, TransformersInChunks
from benchmark.beside.worker import measure
from inf_llm.errors import InfLLMError
from inf_llm.hf.load import DEMO
from tests.benchmark.peer_jobs import FAKE, job_of
from tests.gguf_files import chat_model, write_gguf

pytestmark = pytest.mark.skipif(
    not (DEMO / "model.safetensors").exists(), reason="no demo model here"
)
MODEL, EXACT = "demo-inf-llm", "model.dtype=float32"
WIDE = "model.n_local=2048"
"""A window in which all of the document stands."""


def _answers(subject: Subject) -> list[list[int]]:
    job = subject.job
    return [list(subject.ask(question, 6)) for question in job.context.questions]


@pytest.fixture(scope="module")
def plain() -> Transformers:
    return Transformers(job_of(MODEL, "transformers", EXACT))


def test_a_job_survives_its_text() -> None:
    job = job_of(MODEL, "inf-llm")
    again = Job.parse(job.text())
    assert again == job
    assert again.room == len(job.context.ids) + max(
        len(q.tail) + max(6, len(q.answer) + 4) for q in job.context.questions
    )


def test_transformers_says_what_one_pass_says(plain: Transformers) -> None:
    _answers(plain)
    for question in plain.job.context.questions:
        ids = [*plain.job.context.ids, *question.tail, *question.answer]
        with torch.no_grad():
            logits = plain.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        start = len(ids) - len(question.answer)
        wanted = [-float(logits[at - 1, ids[at]]) for at in range(start, len(ids))]
        assert plain.likelihood(question) == pytest.approx(sum(wanted) / len(wanted), abs=1e-3)


def test_chunks_say_what_one_pass_says(
    plain: Transformers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TransformersInChunks, "chunk", 100)
    chunks = TransformersInChunks(plain.job)
    fed: list[int] = []
    feed = chunks._feed
    monkeypatch.setattr(chunks, "_feed", lambda ids, *k: fed.append(len(ids)) or feed(ids, *k))
    assert _answers(chunks) == _answers(plain)
    assert max(fed) == 100
    assert fed.count(100) == len(plain.job.context.ids) // 100


def test_a_window_over_everything_is_full_attention(plain: Transformers) -> None:
    package = Package(job_of(MODEL, "inf-llm", EXACT, WIDE))
    assert _answers(package) == _answers(plain)
    for question in plain.job.context.questions:
        assert package.likelihood(question) == pytest.approx(plain.likelihood(question), abs=1e-3)
    narrow = Package(job_of(MODEL, "inf-llm", EXACT, "model.topk=1"))
    _answers(narrow)
    question = plain.job.context.questions[0]
    assert narrow.likelihood(question) != pytest.approx(plain.likelihood(question), abs=1e-3)


def test_retrieval_finds_the_passage_within_its_budget() -> None:
    subject = Retrieval(job_of(MODEL, "bm25", "model.topk=8", tokens=4096))
    budget = subject.how()["visible"]
    context = subject.job.context
    for question in context.questions:
        seen = subject.before(question)
        assert 0.5 * budget < len(seen) + len(question.tail) <= budget
        assert seen[:16] == list(context.ids[:16])
        assert question.text in subject.text(seen)


def test_a_server_is_asked(tmp_path: Path) -> None:
    job = _with_file(job_of(MODEL, "llama.cpp-q8", server=FAKE), tmp_path)
    subject, events = make(job), []
    try:
        measure(subject, job, lambda name, figures: events.append((name, figures)))
        with pytest.raises(Refused, match="context size"):
            list(subject._completion([1] * 5000, 1))
    finally:
        subject.close()
    assert [name for name, _ in events] == ["ready", "first", "done"]
    done = events[-1][1]
    assert done["nats"] == [0.5, 0.5]
    assert done["said"][0].startswith("0 1 2 3")
    assert done["peak"] > 1_000_000
    assert "--cache-type-k q8_0" in events[0][1]["how"]["flags"]


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    broken = f"{sys.executable} -c 0/0"
    with pytest.raises(InfLLMError, match="ZeroDivisionError"):
        make(_with_file(job_of(MODEL, "llama.cpp-f16", server=broken), tmp_path))


def test_yarn_beyond_the_trained_length_only(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "model.gguf", chat_model())
    job = job_of(MODEL, "llama.cpp-yarn")
    flags = {}
    for trained in (job.room, 512):
        subject = object.__new__(StretchedServer)
        changed = Job(**{**vars(job), "trained": trained, "gguf": str(file)})
        flags[trained] = subject._flags(changed)
    plain = object.__new__(LlamaServer)._flags(job)
    assert flags[job.room] == plain
    added = flags[512][len(plain) :]
    assert added[:4] == ["--rope-scaling", "yarn", "--rope-scale", f"{int(plain[1]) / 512:g}"]
    assert added[-1] == f"llama.context_length=int:{plain[1]}"


def _with_file(job: Job, folder: Path) -> Job:
    file = folder / "model.gguf"
    file.write_bytes(b"GGUF")
    return Job(**{**vars(job), "gguf": str(file)})
