"""How answers are made: seeds and ends."""

from __future__ import annotations

from inf_llm.serve.sampling import LONGEST_STOP, MOST_STOPS, sampling_of
from tests.serve.questions import refused


def test_each_answer_has_the_next_seed() -> None:
    assert [sampling_of({"seed": 5}).seed_of(i) for i in range(3)] == [5, 6, 7]
    assert sampling_of({"seed": -1}).seed_of(1) == 0, "seeds go round"
    assert sampling_of({}).seed_of(1) is None


def test_stops_are_bounded_in_number_and_length() -> None:
    most = [str(number) for number in range(MOST_STOPS)]
    assert sampling_of({"stop": most}).stop == tuple(most)
    for stop in ([*most, "x"], "x" * (LONGEST_STOP + 1), [1], 5):
        error = refused({"stop": stop})
        assert error.param == "stop"
        assert str(MOST_STOPS) in error.message
