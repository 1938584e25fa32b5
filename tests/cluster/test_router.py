"""Which replicas a request may go to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace as Made
from typing import Any

import pytest

pytest.importorskip("ray.serve", reason="needs the extra 'ray'")

from inf_llm.cluster.router import SPILL, MemoryRouter

ASK, DOCUMENTS = "/v1/chat/completions", "/v1/documents"
ID = "doc-r1-abc"


def chosen(key: str, path: str, folder: Path | None, **busy: int) -> list[str]:
    """The replicas of a request in order, of which some have so many requests."""
    router: Any = MemoryRouter.__new__(MemoryRouter)
    router.initialize_state(None if folder is None else str(folder))
    replicas: Any = [Made(replica_id=Made(unique_id=name)) for name in ("r0", "r1", "r2")]
    pending: Any = Made(args=[key, {"path": path}], routing_context=Made(should_backoff=False))
    router._busy = lambda replica: busy.get(replica.replica_id.unique_id, 0)
    found = asyncio.run(router.choose_replicas(replicas, pending))
    return [replica.replica_id.unique_id for (replica,) in found]


def commit(folder: Path) -> Path:
    (folder / "documents").mkdir()
    (folder / "documents" / f"{ID}.json").touch()
    return folder


def test_a_document_is_asked_where_it_was_read() -> None:
    assert chosen(ID, ASK, None)[0] == "r1"
    assert chosen(ID, ASK, None, r1=SPILL + 1)[0] == "r1"


def test_a_busy_replica_leaves_questions_to_others_that_have_the_text(tmp_path: Path) -> None:
    folder = commit(tmp_path)
    assert chosen(ID, ASK, folder, r1=SPILL)[0] == "r1"
    assert chosen(ID, ASK, folder, r1=SPILL + 1)[-1] == "r1"
    assert chosen("a digest", ASK, folder, r0=SPILL + 1, r1=SPILL + 1)[0] == "r2"


def test_a_text_that_is_being_read_is_at_one_replica(tmp_path: Path) -> None:
    assert chosen(ID, ASK, tmp_path, r1=SPILL + 1)[0] == "r1"
    assert chosen("doc-r1-../../abc", ASK, commit(tmp_path), r1=SPILL + 1)[-1] == "r1"


def test_what_is_done_to_a_document_is_done_where_it_was_read(tmp_path: Path) -> None:
    path = f"{DOCUMENTS}/{ID}/events"
    assert chosen(ID, path, commit(tmp_path), r1=SPILL + 1)[0] == "r1"
