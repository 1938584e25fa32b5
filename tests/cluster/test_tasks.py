"""Jobs on Ray: the items of one process, and what happens when an actor dies."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from inf_llm.cluster.tasks import Failure, here, on_ray
from inf_llm.errors import InfLLMError, MissingExtraError, SettingsError
from tests.cluster.jobs import make_counting, make_nothing, note_given

RAY = importlib.util.find_spec("ray") is not None
with_ray = pytest.mark.skipif(not RAY, reason="ray is not installed: pip install 'inf-llm[ray]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Four processors, so two actors, on this machine."""
    import ray

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    ray.init("local", num_cpus=4, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def _noted(items: Iterator[tuple[str, Any]], folder: Path) -> Iterator[tuple[str, Any]]:
    """The items, each noted where its job can see that it was given."""
    for job, item in items:
        if not isinstance(item, Failure):
            note_given(folder, job, item[0])
        yield job, item


def _by_job(items: Iterator[tuple[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for job, item in items:
        found.setdefault(job, []).append(item if isinstance(item, Failure) else item[0])
    return found


JOBS = ["a 3", "b 0", "refused 3", "c 5", "d 2", "e 1"]
WANTED = {
    "a 3": [0, 1, 2],
    "refused 3": [0, Failure("this is refused")],
    "c 5": [0, 1, 2, 3, 4],
    "d 2": [0, 1],
    "e 1": [0],
}


def test_in_this_process(tmp_path: Path) -> None:
    assert _by_job(here(JOBS, partial(make_counting, tmp_path))) == WANTED


@with_ray
def test_on_ray_items_are_those_of_one_process(cluster: None, tmp_path: Path) -> None:
    items = list(on_ray(JOBS, partial(make_counting, tmp_path)))
    assert _by_job(iter(items)) == WANTED
    made_by = {item[1] for _, item in items if not isinstance(item, Failure)}
    assert len(made_by) <= 2
    assert os.getpid() not in made_by


@with_ray
def test_a_job_whose_actor_died_goes_on_in_another(cluster: None, tmp_path: Path) -> None:
    spread = on_ray(["fatal-1 5", "a 3"], partial(make_counting, tmp_path))
    items = list(_noted(spread, tmp_path))
    assert _by_job(iter(items)) == {"fatal-1 5": [0, 1, 2, 3, 4], "a 3": [0, 1, 2]}
    begun = (tmp_path / "fatal-1").read_text().split()
    assert sorted(begun) == sorted([*map(str, range(5)), "2"])  # what was given was not made again
    assert len({pid for job, (_, pid) in items if job == "fatal-1 5"}) == 2


@with_ray
def test_a_job_that_two_actors_died_of_fails_and_others_go_on(
    cluster: None, tmp_path: Path
) -> None:
    jobs = ["fatal-2 5", *(f"job{n} 2" for n in range(6))]
    found = _by_job(_noted(on_ray(jobs, partial(make_counting, tmp_path)), tmp_path))
    *items, failure = found.pop("fatal-2 5")
    assert items == [0, 1]
    assert failure.reason.startswith("2 actors died of it; Ray says of the last: ")
    assert "\n" not in failure.reason
    assert found == {f"job{n} 2": [0, 1] for n in range(6)}


@with_ray
def test_a_model_that_does_not_load_ends_all(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(InfLLMError, match=f"no actor could be made: {tmp_path} has no model"):
        list(on_ray(JOBS, partial(make_nothing, tmp_path)))
    assert not list(tmp_path.iterdir())


@with_ray
def test_what_is_left_in_the_middle_ends_its_actors(cluster: None, tmp_path: Path) -> None:
    items = on_ray(["a 100000", "b 100000"], partial(make_counting, tmp_path))
    _, (first, process) = next(items)
    assert first == 0
    assert _runs(process)
    items.close()
    deadline = time.monotonic() + 60
    while _runs(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _runs(process)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_ray_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"inf-llm\[ray\]"):
        next(on_ray(JOBS, partial(make_counting, tmp_path)))


@pytest.mark.parametrize("address", ["ray://localhost:10001", "127.0.0.1:1", "127.0.0.1:none"])
def test_an_address_without_a_cluster_is_refused(address: str, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    ray.shutdown()
    with pytest.raises(SettingsError, match=f"--address.*{address}"):
        next(on_ray(JOBS, partial(make_counting, tmp_path), address))
