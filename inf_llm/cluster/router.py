"""Ray Serve's choice of a replica for each request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from inf_llm.cluster.affinity import is_fixed
from inf_llm.cluster.ranking import idle_first, ranked
from inf_llm.serve.library import is_committed, is_document

SPILL = 8
"""With more requests at one replica, another takes the memory from a shared folder."""


class MemoryRouter(RequestRouter):
    """The replica that holds the memory of a request; without one, that with the fewest requests.

    A request's arguments are its `memory_key` and its ASGI scope. A question to a replica that has
    more than `SPILL` requests goes to the next one, where that can take the memory from `folder`: a
    document that many ask about needs more than one replica.
    """

    _folder: Path | None = None

    def initialize_state(self, folder: str | None = None, **other: Any) -> None:
        """See `RequestRouter`.

        Args:
            folder: the `--memory-dir` that replicas share; None where there is none.
        """
        self._folder = None if folder is None else Path(folder)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """See `RequestRouter`; of the replicas in one inner list the least loaded is taken."""
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
        """Whether any replica can go on from a memory: of a document, once its text is there."""
        folder = self._folder
        return folder is not None and (not is_document(key) or is_committed(folder, key))

    def _busy(self, replica: RunningReplica) -> int:
        """Requests that a replica has, as far as that is known here."""
        return self.replica_queue_len_cache.get(replica.replica_id) or 0
