"""`benchmark/serve_sim.py`: its queues are those of theory, and nothing is lost or doubled."""

from __future__ import annotations

import json
import math
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
from simulations import costs, scenario

from benchmark import serve_sim
from benchmark.simulation.costs import read_costs, write_costs
from benchmark.simulation.figures import figures
from benchmark.simulation.replica import Memory
from benchmark.simulation.routing import POLICIES, order
from benchmark.simulation.run import Ran, simulate
from benchmark.simulation.scenario import Request, traffic
from benchmark.simulation.sharing import Shared
from inf_llm.errors import InfLLMError


def _mean_wait(ran: Ran) -> float:
    return statistics.fmean(each.done - each.arrived for each in ran.counted)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_replica_that_reads_is_a_queue_with_shared_service(load: float) -> None:
    """M/G/1 with processor sharing: S / (1 - load) on average, whatever the service times are."""
    ran = simulate(costs(), scenario(load), 1, "random")
    assert _mean_wait(ran) == pytest.approx(1 / (1 - load), rel=0.04)
    assert ran.busy[0] / ran.seconds == pytest.approx(load, rel=0.03)


def test_the_formula_of_another_queue_does_not_fit() -> None:
    """The control: first come, first served (Pollaczek and Khinchine) gives 3.0, not 5.0."""
    load = 0.8
    in_turn = 1 + load / (2 * (1 - load))
    assert _mean_wait(simulate(costs(), scenario(load), 1, "random")) > 1.5 * in_turn


def test_one_request_at_a_time_is_first_come_first_served() -> None:
    load = 0.8
    ran = simulate(costs(), scenario(load, active=1), 1, "random")
    assert _mean_wait(ran) == pytest.approx(1 + load / (2 * (1 - load)), rel=0.05)


def test_answers_that_cost_each_other_nothing_never_wait() -> None:
    """M/G/infinity: an answer takes as long as alone, and all is idle exp(-load) of the time."""
    free = costs(asking=0.0, answering=0.01, together=0.01)
    ran = simulate(free, scenario(1.5, answer=101), 1, "random")
    assert _mean_wait(ran) == pytest.approx(1.0, rel=1e-6)
    assert ran.busy[0] / ran.seconds == pytest.approx(1 - math.exp(-1.5), rel=0.02)
    dear = costs(asking=0.0, answering=0.01, together=0.08)  # eight cost eight times as much
    shared = simulate(dear, scenario(0.5, answer=101), 1, "random")
    assert _mean_wait(shared) == pytest.approx(2.0, rel=0.05)


def test_reading_and_answering_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """While both are there, a question gets its share of the time, and the answer the rest."""
    both = scenario(requests=2, warm_up=0, answer=101, reading_share=0.25)
    questions = [Request(0.0, 0), Request(2.0, 0)]
    monkeypatch.setattr("benchmark.simulation.run.traffic", lambda _: questions)
    simulate(costs(answering=0.05, together=0.4), both, 1, "random")
    one, other = questions
    assert (one.first, other.first) == pytest.approx((1.0, 2.0 + 1 / 0.25))
    # Of 5 s of work the first answer did 1 by second 2 and 3 by second 6; then both go on together.
    assert (one.done, other.done) == pytest.approx((6.0 + 2 * 1.0, 6.0 + 2 * 1.0 + 4.0))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cold", [False, True])
def test_every_question_is_answered_once(policy: str, cold: bool) -> None:
    """Also where there is no room for all documents, and requests wait for their turn."""
    plan = scenario(2.0, documents=30, requests=3000, answer=20, budget=4, active=3, cold=cold)
    work = costs(asking=0.3, answering=0.02, together=0.08, opening=0.5, reading=0.004)
    ran = simulate(work, plan, 4, policy)
    assert len(ran.requests) == 3000
    for each in ran.requests:
        assert each.arrived < each.first < each.done < math.inf
        assert each.source in ("memory", "disk", "text")
    assert ran.read == sum(each.source == "text" for each in ran.requests)
    assert ran.read >= 30 if cold else ran.read == 0
    assert 0 < max(ran.busy) <= ran.seconds * (1 + 1e-9)


def test_a_document_is_read_once_where_one_replica_owns_it() -> None:
    plan = scenario(2.0, documents=30, requests=3000, budget=4, cold=True)
    work = costs(asking=0.1, reading=0.05)
    read = {policy: simulate(work, plan, 4, policy).read for policy in POLICIES}
    assert {read[policy] for policy in ("affinity", "spill-saved", "next-saved")} == {30}
    assert min(read["random"], read["spill"]) > 30  # the control: several begin to read it


@pytest.mark.parametrize("replicas", [2, 4, 16])
def test_an_owner_has_its_documents_at_hand_more_often_than_any_replica(replicas: int) -> None:
    plan = scenario(2.0, documents=100, requests=8_000, budget=10)
    shares = {}
    for policy in POLICIES:
        ran = simulate(costs(asking=0.1), plan, replicas, policy)
        shares[policy] = sum(each.source == "memory" for each in ran.counted) / len(ran.counted)
    assert shares["affinity"] > shares["random"] + 0.1
    assert shares["affinity"] >= max(shares["spill"], shares["next-saved"]) - 0.01
    assert min(shares["spill"], shares["next-saved"]) > shares["random"]


def test_what_was_used_least_recently_leaves() -> None:
    memory = Memory(2)
    trace = {"a": False, "b": False, "A": True, "c": False, "B": False, "C": True, "d": False}
    found = [memory.use(ord(each.lower())) for each in trace]
    assert found == list(trace.values())  # c took the place of b, b that of a, and d that of b
    assert [memory.use(ord(each)) for each in "cdb"] == [True, True, False]


def test_the_memory_is_that_of_a_list_in_the_order_of_use() -> None:
    draw, memory, order = random.Random(1), Memory(5), list[int]()
    for _ in range(2000):
        document = draw.randrange(9)
        assert memory.use(document) == (document in order[-5:])
        order = [each for each in order if each != document] + [document]


def test_most_documents_stay_when_a_replica_is_added() -> None:
    owners = [(order(each, 8)[0], order(each, 9)[0]) for each in range(4000)]
    moved = [new for old, new in owners if old != new]
    assert set(moved) == {8}
    assert len(moved) / 4000 == pytest.approx(1 / 9, rel=0.15)
    shares = [sum(old == replica for old, _ in owners) / 4000 for replica in range(8)]
    assert max(shares) < 1.3 / 8 < 1.7 * min(shares)


def test_where_a_question_goes_while_its_owner_has_many() -> None:
    plan = scenario(documents=1, spill=2)
    first, second, *rest = order(0, 4)
    present = [9, 9, 9, 9]
    present[second], present[rest[0]] = 2, 1
    routes = {policy: make(plan, 4) for policy, make in POLICIES.items()}
    del routes["random"]
    assert {policy: route(0, present, True) for policy, route in routes.items()} == {
        "affinity": first,
        "spill": rest[0],
        "spill-saved": rest[0],
        "next-saved": second,
    }
    unsaved = {policy: route(0, present, False) for policy, route in routes.items()}
    assert unsaved == {**dict.fromkeys(routes, first), "spill": rest[0]}
    present[first] = 2
    assert {route(0, present, True) for route in routes.values()} == {first}


def test_documents_are_asked_about_by_their_rank() -> None:
    plan = scenario(documents=50, requests=50_000, zipf=1.0)
    documents = [each.document for each in traffic(plan)]
    assert documents.count(0) / documents.count(9) == pytest.approx(10, rel=0.15)
    assert traffic(plan)[-1].arrived == pytest.approx(50_000 / plan.rate, rel=0.02)


def test_the_same_seed_gives_the_same_figures_and_another_others() -> None:
    def run(seed: int) -> dict[str, Any]:
        plan = scenario(2.0, documents=20, requests=500, seed=seed)
        return figures(4, "random", simulate(costs(), plan, 4, "random"))

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize(("load", "saturates"), [(0.9, False), (1.2, True)])
def test_what_has_more_work_than_time_saturates(load: float, saturates: bool) -> None:
    def longest(requests: int) -> float:
        ran = simulate(costs(), scenario(load, requests=requests), 1, "random")
        assert figures(1, "random", ran)["saturates"] == saturates
        return max(each.done - each.arrived for each in ran.counted)

    grows = longest(20_000) / longest(5_000)
    assert grows == pytest.approx(4, rel=0.2) if saturates else grows < 3


def test_served_together_each_gets_the_same() -> None:
    shared: Shared[str] = Shared()
    assert shared.left(1.0) == math.inf
    shared.add("long", 3.0)
    shared.serve(1.0, 1.0)
    shared.add("short", 1.0)
    assert shared.left(0.5) == 2.0
    shared.serve(2.0, 0.5)
    assert (shared.take(), len(shared), shared.left(1.0)) == ("short", 1, 1.0)


# what is wrong: words, what the message says
REFUSED = {
    "no costs": (["--costs", "none.json"], "--measure CONFIG makes the file"),
    "no budget": (["--budget", "10"], "has no room for a document: one takes 1.0 KB"),
    "no number of replicas": (["--replicas", "1,none"], "--replicas '1,none'"),
    "no policy": (
        ["--policies", "best"],
        "accepted: random, affinity, spill, spill-saved, next-saved",
    ),
    "no users": (["--users", "0"], "users = 0 is too small"),
    "an override": (["model.topk=2"], "'model.topk=2' goes with --measure"),
    "another length": (["--tokens", "32k"], "was measured for 1000"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_costs(tmp_path / "costs.json", costs(bytes=1000))
    words, message = REFUSED[name]
    assert serve_sim.main(["--costs", "costs.json", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reading": -1.0}, "reading = -1.0 is out of range"),
        ({"rows": 1}, "rows = 1 is too small"),
        ({"model": 3}, "model"),
        ({"speed": 3}, "unexpected keyword argument 'speed'"),
    ],
)
def test_a_file_without_costs_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "costs.json"
    file.write_text(json.dumps({**vars(costs()), **change}))
    with pytest.raises(InfLLMError, match="holds no costs of --measure") as refused:
        read_costs(file)
    assert message in str(refused.value)


def test_the_command_measures_simulates_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    kept, facts, picture = tmp_path / "c.json", tmp_path / "f.json", tmp_path / "p.svg"
    small = ["--requests", "200", "--replicas", "2,1", "--costs", str(kept)]
    measured = ["--measure", "demo-inf-llm", "--tokens", "3k", "model.dtype=float32"]
    assert serve_sim.main([*small, *measured]) == 0
    assert list(tmp_path.iterdir()) == [kept]  # the memory that was opened is gone
    found = read_costs(kept)
    assert found.tokens == 3072
    assert 0 < found.answering < found.together < 8 * found.answering * 3
    assert found.reading > 0
    assert found.opening > 0
    first = capsys.readouterr().out
    assert serve_sim.main([*small, "--json", str(facts), "--draw", str(picture)]) == 0
    assert capsys.readouterr().out == first
    rows = json.loads(facts.read_text())["rows"]
    assert [row["replicas"] for row in rows] == [1] * 5 + [2] * 5
    assert "<svg" in picture.read_text()
