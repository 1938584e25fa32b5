"""Room for sessions: what they take, and what they will."""

from __future__ import annotations

from typing import Any

import pytest

import inf_llm
from inf_llm.generation import Session
from inf_llm.generation.footprint import footprint
from inf_llm.generation.room import Room
from tests.tiny import SETTINGS, tiny_model, tiny_tokenizer

EACH = 1000  # bytes that a token takes, as the room is told


@pytest.fixture(scope="module")
def model() -> Any:
    return inf_llm.patch(tiny_model(), type="inf-llm", **SETTINGS)


def _session(model: Any, tokens: int = 0) -> Session:
    session = Session(model, tiny_tokenizer(), 64)
    session.read([5] * tokens)
    return session


def test_sessions_that_share_count_once(model: Any) -> None:
    session, room = _session(model, 400), Room(None, None)
    room.enter(session, 400)
    assert room.fits([session])
    assert room.bytes == footprint([session])
    assert room.fits([session.fork()])
    assert footprint([session]) < room.bytes < 2 * footprint([session])
    room.leave(session)
    assert room.fits([])
    assert room.bytes == 0


def test_what_is_in_use_counts_as_what_it_will_take(model: Any) -> None:
    room, session = Room(100 * EACH, lambda tokens: EACH * tokens), _session(model)
    room.enter(session, 90)
    assert room.fits([])
    assert room.has_place(0, 10)
    assert not room.has_place(0, 11)
    assert room.has_place(80, 90), "most of it is in memory"
    room.enter(session, 101)
    assert not room.fits([])


def test_one_alone_always_has_a_place(model: Any) -> None:
    room = Room(100 * EACH, lambda tokens: EACH * tokens)
    assert room.has_place(0, 10**6)
    room.enter(_session(model), 1)
    assert not room.has_place(0, 10**6)
    assert not room.fork().fits([_session(model, 400)])
    assert room.fork().has_place(0, 10**6), "a fork has nothing in use"


def test_without_a_limit_all_have(model: Any) -> None:
    for room in (Room(None, lambda tokens: EACH * tokens), Room(10, None)):
        room.enter(_session(model), 10**6)
        assert room.has_place(0, 10**9)
