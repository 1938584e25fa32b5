"""Recorded decode steps give what plain ones give, and hand back what they hold in time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inf_llm.attention.base import Rule
from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.memory.store import Home
from tests.attention.recording import Recorder, recorder  # noqa: F401
from tests.layers import Qkv, feed, make_memory_layer, random_qkv, rule

CLOSE: dict[str, float] = {"atol": 1e-5, "rtol": 1e-5}
COUNTS = ("tokens", "blocks", "hits", "misses", "loads", "evictions", "host_bytes", "index_bytes")


def both(**settings: Any) -> tuple[InfLLMAttention, InfLLMAttention]:
    """A layer that records, and one that does not."""
    return (
        make_memory_layer(slots=True, decode_graph=True, **settings),
        make_memory_layer(slots=True, **settings),
    )


def some(qkv: Qkv, first: int, last: int) -> Qkv:
    q, k, v = (x[:, :, first:last] for x in qkv)
    return q, k, v


def check_same(one: InfLLMAttention, other: InfLLMAttention) -> None:
    mine, theirs = one.stats(), other.stats()
    assert [getattr(mine, name) for name in COUNTS] == [getattr(theirs, name) for name in COUNTS]


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"perhead": True},
        {"n_init": 0},
        {"repr_topk": 6},
        {"cache_strategy": "fifo"},
        {"cache_strategy": "lru-s", "score_decay": 0.5},
        {"topk": 5},
        {"block_size": 1, "repr_topk": 1},
    ],
    ids=str,
)
def test_recorded_steps(recorder: Recorder, rows: int, settings: dict[str, Any]) -> None:  # noqa: F811
    qkv = random_qkv(150, rows=rows)
    recording, plain = both(**settings)
    feeds = [70] + [1] * 80
    torch.testing.assert_close(feed(recording, qkv, feeds), feed(plain, qkv, feeds), **CLOSE)
    check_same(recording, plain)
    if settings.get("block_size") != 1:
        assert recorder.repeated > 50
        assert recorder.recorded < 8


@pytest.mark.parametrize("sink", [False, True], ids=["", "learned sink"])
def test_other_rules(recorder: Recorder, sink: bool) -> None:  # noqa: F811
    qkv = random_qkv(120)
    how = Rule(rule(softcap=3.0).scoring, torch.randn(4) if sink else None)
    recording, plain = both()
    feeds = [70] + [1] * 50
    want = feed(plain, qkv, feeds, how)
    torch.testing.assert_close(feed(recording, qkv, feeds, how), want, **CLOSE)
    assert recorder.repeated > 30


def test_a_rule_that_changes(recorder: Recorder) -> None:  # noqa: F811
    """A recorded step knows the rule it was recorded with."""
    qkv = random_qkv(120)
    recording, plain = both(block_size=12)
    for layer in (recording, plain):
        feed(layer, some(qkv, 0, 90), [80] + [1] * 10)
    for at, how in (
        (90, rule(softcap=3.0)),
        (95, rule()),
        (100, Rule(rule().scoring, torch.ones(4))),
    ):
        got, want = (
            feed(layer, some(qkv, at, at + 5), [1] * 5, how) for layer in (recording, plain)
        )
        torch.testing.assert_close(got, want, **CLOSE)
    assert recorder.repeated > 10


@pytest.mark.parametrize("n_init", [0, 4])
def test_half_precision(n_init: int, recorder: Recorder) -> None:  # noqa: F811
    qkv = random_qkv(120, dtype=torch.bfloat16)
    recording, plain = both(n_init=n_init)
    feeds = [70] + [1] * 50
    got, want = feed(recording, qkv, feeds), feed(plain, qkv, feeds)
    torch.testing.assert_close(got, want, atol=3e-2, rtol=3e-2)
    assert recorder.repeated > 30


def test_prompts_in_between(recorder: Recorder) -> None:  # noqa: F811
    qkv = random_qkv(200, rows=2)
    recording, plain = both()
    feeds = [70, *[1] * 9, 30, *[1] * 4, 2, *[1] * 40, 15, *[1] * 30]
    torch.testing.assert_close(feed(recording, qkv, feeds), feed(plain, qkv, feeds), **CLOSE)
    check_same(recording, plain)
    assert recorder.repeated > 50


def test_a_short_text_is_not_recorded(recorder: Recorder) -> None:  # noqa: F811
    """Before there are sinks, a window and blocks enough every step differs."""
    qkv = random_qkv(100)
    recording, plain = both()
    torch.testing.assert_close(
        feed(recording, qkv, [1] * 100), feed(plain, qkv, [1] * 100), **CLOSE
    )
    assert 0 < recorder.repeated < 60


@pytest.mark.parametrize("size", [2, 6])
def test_the_archive_grows_between_two_steps(recorder: Recorder, size: int) -> None:  # noqa: F811
    """Somebody else fills the slots, and makes tables that a recorded step does not know."""
    qkv, other = random_qkv(200), random_qkv(700, seed=1)
    recording, plain = both(block_size=size, exc_block_size=size)
    for layer in (recording, plain):
        feed(layer, some(qkv, 0, 103), [90] + [1] * 13)
    twins = recording.fork(), plain.fork()
    at = 103
    for first, last in ((0, 20), (20, 500), (500, 700)):
        before = recorder.repeated
        for layer, twin in zip((recording, plain), twins, strict=True):
            feed(layer, some(qkv, at, at + 1), [1])
            feed(twin, some(other, first, last))
        got, want = (
            feed(layer, some(qkv, at + 1, at + 6), [1] * 5) for layer in (recording, plain)
        )
        torch.testing.assert_close(got, want, **CLOSE)
        assert recorder.repeated > before
        at += 6
    check_same(recording, plain)


@pytest.mark.parametrize("rows", [1, 2])
def test_forks_in_turns(recorder: Recorder, rows: int) -> None:  # noqa: F811
    """They share blocks, slots and index, which grow under each other."""
    qkv, other = random_qkv(260, rows=rows), random_qkv(260, rows=rows, seed=1)
    recording, plain = both()
    for layer in (recording, plain):
        feed(layer, some(qkv, 0, 90), [80] + [1] * 10)
    twins = recording.fork(), plain.fork()
    at = 90
    for steps in (1, 7, 20, 3, 50, 40):
        span = at, at + steps
        for (one, two), text in (((recording, plain), qkv), (twins, other)):
            got, want = (feed(layer, some(text, *span), [1] * steps) for layer in (one, two))
            torch.testing.assert_close(got, want, **CLOSE)
        at += steps
    check_same(recording, plain)
    assert recorder.repeated > 100


def test_rows_are_chosen(recorder: Recorder) -> None:  # noqa: F811
    """As beam search does, to other rows and to more."""
    qkv = random_qkv(140, rows=2)
    recording, plain = both()
    for layer in (recording, plain):
        feed(layer, some(qkv, 0, 90), [80] + [1] * 10)
    at = 90
    for rows in ([1, 0], [1, 1], [0, 0, 1], [2, 1, 0, 0]):
        chosen = torch.tensor(rows)
        for layer in (recording, plain):
            layer.select_rows(chosen)
        text = random_qkv(9, rows=len(rows), seed=at)
        got, want = (feed(layer, text, [1] * 9) for layer in (recording, plain))
        torch.testing.assert_close(got, want, **CLOSE)
        at += 9
    assert recorder.repeated > 20


def test_cropped(recorder: Recorder) -> None:  # noqa: F811
    """While it must be able to go back, nothing is recorded; afterwards it is again."""
    qkv = random_qkv(140)
    recording, plain = both()
    for layer in (recording, plain):
        feed(layer, some(qkv, 0, 90), [80] + [1] * 10)
        layer.record()
    before = recorder.repeated
    for layer in (recording, plain):
        feed(layer, some(qkv, 90, 100), [1] * 10)
        layer.crop(4)
        layer.record(False)
    assert recorder.repeated == before
    got, want = (feed(layer, some(qkv, 96, 140), [1] * 44) for layer in (recording, plain))
    torch.testing.assert_close(got, want, **CLOSE)
    check_same(recording, plain)
    assert recorder.repeated > before


def test_whoever_looks_sees_everything(recorder: Recorder) -> None:  # noqa: F811
    """In the middle of recorded steps, and the steps go on."""
    qkv = random_qkv(120)
    recording, plain = both()
    for layer in (recording, plain):
        feed(layer, some(qkv, 0, 80), [70] + [1] * 10)
    for at in range(80, 120):
        for layer in (recording, plain):
            feed(layer, some(qkv, at, at + 1), [1])
        if at % 3 == 0:
            check_same(recording, plain)
            mine, theirs = recording.memory.recent, plain.memory.recent
            assert len(mine) == len(theirs)
            for stream in ("k", "v", "mass"):
                torch.testing.assert_close(mine[stream], theirs[stream], **CLOSE)


def test_blocks_in_several_slabs(
    recorder: Recorder,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """New slabs have new addresses, which a recorded step does not know."""
    qkv = random_qkv(150)
    recording, plain = both()
    feeds = [70] + [1] * 80
    want = feed(plain, qkv, feeds)
    addresses: list[Any] = []

    def moving(home: Home, device: torch.device) -> Any:
        if len(addresses) != home.count // 3 + 1:  # as if every third block needed a slab
            addresses[:] = [None] * (home.count // 3 + 1)
            moving.now = tuple(slab[:] for slab in home._slabs[0])  # type: ignore[attr-defined]
        return moving.now  # type: ignore[attr-defined]

    monkeypatch.setattr(Home, "addresses", moving)
    torch.testing.assert_close(feed(recording, qkv, feeds), want, **CLOSE)
    assert 3 < recorder.recorded < 8


def test_without_a_device_that_records() -> None:
    """On a CPU the setting changes nothing."""
    qkv = random_qkv(120)
    recording, plain = both()
    feeds = [70] + [1] * 50
    assert torch.equal(feed(recording, qkv, feeds), feed(plain, qkv, feeds))
    assert recording._steady is None


def test_a_recording_refuses_numbers() -> None:
    """The control: what would make a GPU wait is noticed."""
    made = Recorder()
    repeat = made(lambda: print(torch.ones(1).item()))
    with pytest.raises(AssertionError, match="brings a number to the host"):
        repeat()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("perhead", [False, True], ids=["together", "perhead"])
def test_graphs_on_a_gpu(perhead: bool) -> None:
    qkv = random_qkv(200, device="cuda", dtype=torch.bfloat16)
    recording, plain = both(perhead=perhead)
    feeds = [90] + [1] * 110
    got, want = feed(recording, qkv, feeds), feed(plain, qkv, feeds)
    torch.testing.assert_close(got, want, atol=3e-2, rtol=3e-2)
    assert recording._steady is not None
