"""The router of Ray Serve: it selects a replica for each request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from inf_llm.cluster.affinity import is_fixed
from inf_llm.cluster.ranking import idle_first, ranked
from inf_llm.serve.library import is_committed, is_document

SPILL = 8
"""If a replica has more requests, another one loads the memory from the shared folder."""


class MemoryRouter(RequestRouter):
    """Selects the replica that holds the memory of a request, or the one with the fewest requests.

    The arguments of a request are its `memory_key` and its ASGI scope. If a replica has more than
    `SPILL` requests, a question goes to the next replica, provided that this replica can load the
    memory from `folder`. So several replicas share the questions about a popular document.
    """

    _folder: Path | None = None

    def initialize_state(self, folder: str | None = None, **other: Any) -> None:
        """Set up the router; see `RequestRouter`.

        Args:
            folder: the `--memory-dir` that the replicas share; None without one.
        """
        self._folder = None if folder is None else Path(folder)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return ranked groups of replicas; Ray takes the least loaded replica of a group."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        arguments: list[Any] = pending_request.args
        if not arguments or not arguments[0]:
            return [candidate_replicas]
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        key, path = arguments[0], arguments[1]["path"]
        order = [by_name[name] for name in ranked(key, list(by_name))]
        if not is_fixed(path) and self._others_have(key):
            order = idle_first(order, self._busy, SPILL)
        return [[replica] for replica in order]

    def _others_have(self, key: str) -> bool:
        """Whether any replica can load a memory; a document must be committed first."""
        folder = self._folder
        return folder is not None and (not is_document(key) or is_committed(folder, key))

    def _busy(self, replica: RunningReplica) -> int:
        """Return the number of requests of a replica, as this router has it cached."""
        return self.replica_queue_len_cache.get(replica.replica_id) or 0
