"""A real model in use: a long text read, chats, the server, traces and forks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.demo.trial import haystack_text
from inf_llm.generation import Session, choose_layout, encode, save_report
from inf_llm.generation.decoding import Decoding, step
from inf_llm.generation.options import answer_options
from inf_llm.hf.dtype import dtype_choice, dtype_name, time_formats
from tests.real.models import LONG, MODELS, load, prose, tokenizer

Lend = Callable[[str, str], Any]
Write = Callable[..., Path]
CHATTING = [name for name, real in MODELS.items() if real.chats]
LONG_TEXT, SHORT_TEXT = 16_384, 2_304
SECONDS = 40  # for reading; a processor that would take longer reads SHORT_TEXT


def _affordable(name: str) -> int:
    """Tokens that bfloat16 reads here in the time there is, judged by one layer."""
    model = load(name, "bfloat16")
    seconds = time_formats(model, [torch.bfloat16])[torch.bfloat16]
    layers = model.config.get_text_config().num_hidden_layers
    foreseen = LONG_TEXT / 32 * seconds * layers
    tokens = LONG_TEXT if foreseen < SECONDS else SHORT_TEXT
    print(f"{name}: bfloat16 would read {LONG_TEXT:,} tokens in {foreseen:.0f} s; reads {tokens:,}")
    return tokens


def _run(config: Path, book: Path, prompt: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from inf_llm.cli import main; main()", "run"]
    command += ["-c", str(config), "-f", str(book), "-p", prompt, *words]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("name", MODELS)
def test_a_long_text_in_bfloat16(write_config: Write, tmp_path: Path, name: str) -> None:
    """Twice the trained length of SmolLM2: an answer in words, and no more held on the device."""
    tokens = _affordable(name)
    held = {}
    for count in (1_280, tokens):
        book = tmp_path / f"{count}.txt"
        book.write_text(tokenizer(name).decode(prose(name, count), skip_special_tokens=True))
        config = write_config(name, dtype="bfloat16")
        done = _run(config, book, "Who is this about?", "-n", "24")
        assert done.returncode == 0, done.stderr
        summary = done.stderr.strip().splitlines()[-1]
        print(f"{name}: {summary}\n  {done.stdout.strip()!r}")
        held[count] = re.search(r"memory ([\d.]+ .B) device", summary)[1]
        read = int(re.search(r"read ([\d,]+) tokens", summary)[1].replace(",", ""))
        assert read >= 0.95 * count
    letters = [letter for letter in done.stdout if letter.isascii() and letter.isalpha()]
    assert len(letters) > len(done.stdout) / 2
    assert len(set(held.values())) == 1


@pytest.mark.parametrize("name", CHATTING)
def test_the_chat_template_is_used(name: str) -> None:
    text = "Who is  Pierre?\n\nTell me."
    layout = choose_layout(tokenizer(name))
    prompt, add_special = layout.prompt([{"role": "user", "content": text}]), layout.adds_special
    ids = encode(tokenizer(name), prompt, add_special)
    special = tokenizer(name).convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" in prompt
    assert all(ids.count(token) >= 2 for token in special), "they are single tokens"
    assert not add_special


@pytest.mark.parametrize("name", CHATTING)
def test_a_chat_reads_its_text_once(lent: Lend, name: str) -> None:
    model = inf_llm.patch(lent(name, "float32"), type="inf-llm", **LONG["inf-llm"])
    book = haystack_text()[:6000]
    chat = inf_llm.ChatSession(model, tokenizer(name), chunk_size=1024)
    chat.add_document(book, "book.txt")
    of_book = len(encode(tokenizer(name), book, False))
    first = chat.fork().ask("What is this text about?", max_new_tokens=12)
    again = chat.ask("What is this text about?", max_new_tokens=12)
    then = chat.ask("And who is in it?", max_new_tokens=12)
    assert first.text == again.text
    assert first.text.strip()
    assert "<|im_" not in first.text
    for reply in (first, again, then):
        assert reply.reuse.reused > 0.9 * of_book, "the text was read again"


@pytest.mark.parametrize("name", CHATTING)
def test_the_server_streams_what_it_answers(write_config: Write, name: str) -> None:
    conftest = pytest.importorskip("tests.serve.conftest", reason="needs the extras of the server")
    server = conftest.start(write_config(name, dtype="float32"), "--max-new-tokens", "16")
    try:
        client = server.client(timeout=600)
        question = [{"role": "user", "content": haystack_text()[:4000] + "\n\nWho is in it?"}]
        asked = {"model": server.model, "messages": question, "temperature": 0}
        whole = client.chat.completions.create(**asked)
        stream = client.chat.completions.create(**asked, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        again = client.chat.completions.create(**asked)
    finally:
        server.stop()
    assert whole.choices[0].message.content.strip()
    assert "".join(pieces) == whole.choices[0].message.content == again.choices[0].message.content
    assert again.usage.prompt_tokens_details.cached_tokens > 0.8 * again.usage.prompt_tokens


@pytest.mark.parametrize("name", MODELS)
def test_traces_and_forks(lent: Lend, tmp_path: Path, name: str) -> None:
    model = inf_llm.patch(lent(name, "bfloat16"), type="inf-llm", **LONG["inf-llm"])
    ids, question = prose(name, 1500), encode(tokenizer(name), "\n\nThe", False)
    session = Session(model, tokenizer(name), 1024)
    session.read(ids)
    fork, other = session.fork(), session.fork()
    with inf_llm.trace(model, prompts=False) as trace:
        answer = fork.ask(question, max_new_tokens=8)
    other.ask(encode(tokenizer(name), "\n\nSomething else", False), max_new_tokens=4)
    assert session.fork().ask(question, max_new_tokens=8).token_ids == answer.token_ids
    fresh = Session(model, tokenizer(name), 512)
    fresh.read([*ids, *question])
    assert fresh.ask(max_new_tokens=8).token_ids == answer.token_ids

    own_windows = getattr(model.config.get_text_config(), "layer_types", None) or []
    layers = model.config.get_text_config().num_hidden_layers
    layers -= own_windows.count("sliding_attention")
    assert len({recall.layer for recall in trace.recalls}) == layers
    assert {recall.token for recall in trace.recalls} == set(range(len(answer.token_ids)))
    passages = trace.passages()
    assert all(32 <= p.start < p.end <= len(ids) for p in passages), "behind the sinks"
    assert passages[0].text(fork.ids, tokenizer(name)).strip()
    page = tmp_path / "trace.html"
    save_report(trace, fork.ids, tokenizer(name), page, prompt_tokens=len(ids), title=name)
    assert "</html>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["smollm2"])
def test_auto_takes_what_is_measured_to_be_faster(write_config: Write, name: str) -> None:
    folder = MODELS[name].folder
    model, _ = inf_llm.load(write_config(name))
    choice = dtype_choice(model)
    print(f"{folder.name}: {choice}")
    assert dtype_name(model.dtype) == str(choice).split(" ", 1)[0]
    slowest = max(choice.seconds, key=choice.seconds.__getitem__)
    assert choice.dtype != slowest or choice.seconds[slowest] < 1.2 * min(choice.seconds.values())


def test_answers_in_one_pass_are_those_of_one_at_a_time(lent: Lend) -> None:
    """In float32; sessions of several lengths, of which one goes on when the others have ended."""
    model = inf_llm.patch(lent("smollm2", "float32"), type="inf-llm", **LONG["inf-llm"])
    words = tokenizer("smollm2")
    ids = prose("smollm2", 2_600)
    sessions = [Session(model, words) for _ in range(4)]
    for session, length in zip(sessions, (2_600, 700, 1_411, 60), strict=True):
        session.read(ids[-length:])
    alone = [
        session.fork().ask(max_new_tokens=new).token_ids
        for session, new in zip(sessions, (40, 24, 24, 24), strict=True)
    ]
    options = [answer_options(model, words, new, {}) for new in (40, 24, 24, 24)]
    rows = [Decoding(*pair) for pair in zip(sessions, options, strict=True)]
    while going := [row for row in rows if not row.over]:
        step(going)
    assert [tuple(row.new) for row in rows] == alone
