"""Who is next: even between texts, quick for short ones, and in shares between the two kinds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from inf_llm.serve.scheduler import AHEAD, APART, LAG, SAVED, Scheduler

CHUNK = 1000


@dataclass(eq=False)
class Task:
    client: str
    left: int = 10**9
    answers: bool = False
    waiting: int = 0


def _read(scheduler: Scheduler, tasks: list[Task]) -> Task:
    """One turn among prompts; those that are read to their end leave."""
    (task,) = scheduler.next(tasks)
    fed = min(CHUNK, task.left)
    task.left -= fed
    scheduler.record_turn([task], False, fed, fed / 10_000)
    if not task.left:
        tasks.remove(task)
    return task


def test_texts_are_read_evenly_between_clients_and_then_within_one() -> None:
    tasks = [Task("a"), Task("b"), Task("b"), Task("b")]
    scheduler, had = Scheduler(0.5), Counter[Task]()
    for _ in range(600):
        had[_read(scheduler, tasks)] += 1
    assert [round(had[task] / 100, 1) for task in tasks] == [3, 1, 1, 1]


def test_each_of_sixteen_has_its_share_when_it_ends() -> None:
    tasks = [Task(f"client {n}", 20_000 + 2_500 * n) for n in range(16)]
    work = {task: task.left for task in tasks}
    scheduler, total = Scheduler(0.5), 0
    while tasks:
        total += CHUNK
        task = _read(scheduler, tasks)
        if not task.left:
            assert total <= 1.1 * 16 * work[task]


@pytest.mark.parametrize("client", ["the same", "another"])
def test_a_short_prompt_does_not_wait_for_books(client: str) -> None:
    tasks = [Task("the same", 10**6) for _ in range(8)]
    scheduler = Scheduler(0.5)
    for _ in range(50):
        _read(scheduler, tasks)
    short = Task(client, 200)
    tasks.append(short)
    while short.left:
        (task,) = scheduler.next(tasks)
        assert task is short
        short.left -= 100  # in steps
        scheduler.record_turn([task], False, 100, 0.01)


def test_new_prompts_go_in_the_order_they_came() -> None:
    """Each takes steps that read nothing, and then one that does; another comes with each step."""
    book, scheduler = Task("a"), Scheduler(0.5)
    _read(scheduler, [book])
    waiting, came, done = [Task(f"client {n}", 3) for n in range(40)], list[Task](), list[Task]()
    for at in range(400):
        came += waiting[at : at + 1]
        (task,) = scheduler.next([book, *came])
        task.left -= 1
        scheduler.record_turn([task], False, 50 if task is book or not task.left else 0, 0.01)
        if not task.left:
            came.remove(task)
            done.append(task)
    assert done == waiting


def test_all_ends_of_prompts_are_there_before_one_is_fed() -> None:
    book, scheduler, ends = Task("a"), Scheduler(0.5), [Task(f"client {n}") for n in range(5)]
    _read(scheduler, [book])
    for _ in ends:
        (task,) = scheduler.next([book, *ends])
        assert task in ends
        assert not task.waiting
        task.waiting = 40
        scheduler.record_turn([task], False, 0, 0.01)
    assert scheduler.next([book, *ends]) == [ends[0]]


def test_a_late_book_does_not_hold_up_an_early_one() -> None:
    early, scheduler = Task("a"), Scheduler(0.5)
    for _ in range(50):
        _read(scheduler, [early])
    late = Task("a")
    had = Counter(_read(scheduler, [early, late]) for _ in range(20))
    assert had[late] - had[early] <= 2 * AHEAD // CHUNK


def test_a_stream_of_short_prompts_does_not_hold_up_a_book() -> None:
    book, scheduler, had = Task("a"), Scheduler(0.5), 0
    _read(scheduler, [book])
    for n in range(100):
        had += _read(scheduler, [book, Task(f"client {n}", 200)]) is book
    assert had >= 10


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_reading_and_answering_share_the_time(share: float) -> None:
    book, answers = Task("a"), [Task("b", answers=True), Task("c", answers=True)]
    scheduler, spent = Scheduler(share), Counter[bool]()
    for _ in range(1000):
        turn = scheduler.next([book, *answers])
        assert turn in ([book], answers)
        seconds = 0.1 if turn == [book] else 0.02
        spent[turn == [book]] += seconds  # type: ignore[assignment]
        scheduler.record_turn(turn, turn == answers, CHUNK, seconds)
    assert spent[True] / sum(spent.values()) == pytest.approx(share, abs=0.02)


def test_no_claim_to_time_in_which_there_was_nothing_to_do() -> None:
    book, answer, scheduler = Task("a"), Task("b", answers=True), Scheduler(0.5)
    for _ in range(100):
        scheduler.record_turn(scheduler.next([book]), False, CHUNK, 0.1)
    for _ in range(6):
        scheduler.record_turn(scheduler.next([book, answer]), True, 0, 0.02)
    assert scheduler.next([book, answer]) == [book]


@pytest.mark.parametrize("alongside", [False, True])
def test_a_new_prompt_does_not_wait_for_answers_but_a_stream_of_them_does(alongside: bool) -> None:
    book, answer, scheduler = Task("a"), Task("b", answers=True), Scheduler(0.5)
    for _ in range(100):
        turn = scheduler.next([book, answer])
        scheduler.record_turn(turn, turn == [answer], CHUNK, 0.1, alongside)
    while (turn := scheduler.next([book, answer])) != [answer]:
        scheduler.record_turn(turn, False, CHUNK, 0.1, alongside)
    new = Task("c")
    assert scheduler.next([book, answer, new]) == [new]
    had = 0
    for n in range(200):
        turn = scheduler.next([book, answer, Task(f"client {n}")])
        had += turn == [answer]
        scheduler.record_turn(turn, turn == [answer], 100, 0.1, alongside)
    assert 80 < had < 120


def test_answers_that_have_tokens_with_a_text_ask_for_time_later() -> None:
    """A short answer ends without any; a long one has its share all the same."""
    book, answer = Task("a"), Task("b", answers=True)
    for alongside in (True, False):
        scheduler = Scheduler(0.5)
        scheduler.record_turn(scheduler.next([book]), False, CHUNK, 0.1)
        first, spent = [], Counter[bool]()
        for _ in range(400):
            turn = scheduler.next([book, answer])
            first.append(turn == [book])
            spent[turn == [book]] += 0.1  # type: ignore[assignment]
            beside = None if turn == [answer] else alongside
            scheduler.record_turn(turn, turn == [answer], CHUNK, 0.1, beside)
        before = first[2:].index(False)  # the first two show whether they go together
        assert abs(before - (LAG / 0.2 if alongside else 0)) <= 2
        assert spent[True] / sum(spent.values()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("alongside", [True, None])
def test_ends_of_prompts_are_fed_by_themselves_for_a_part_of_the_time(
    alongside: bool | None,
) -> None:
    book, end = Task("reads"), Task("asks", answers=True)
    scheduler, apart = Scheduler(0.5), 0.0
    for _ in range(1000):
        scheduler.next([book, end])
        by_itself = scheduler.apart
        scheduler.record_turn([book], False, 100, 0.3, alongside, by_itself)
        apart += 0.3 * by_itself
    assert apart == pytest.approx(APART * 300, abs=SAVED + 0.3)


def test_ends_are_fed_by_themselves_where_a_chunk_cannot_take_them_along() -> None:
    book, scheduler = Task("reads"), Scheduler(0.5)
    scheduler.next([book])
    for _ in range(10):
        scheduler.record_turn([book], False, 100, 1.0, False, True)
        assert scheduler.apart
