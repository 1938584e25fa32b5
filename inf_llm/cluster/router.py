"""Ray Serve's choice of a replica for each request."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from inf_llm.cluster.affinity import is_fixed
from inf_llm.cluster.ranking import idle_first, ranked


class MemoryRouter(RequestRouter):
    """The replica that holds the memory of a request; without one, that with the fewest requests.

    A request's arguments are its `memory_key` and its ASGI scope. A question to a replica that has
    more than `spill` requests, where that is a number, goes to the next one, which takes the memory
    from the disk: a document that many ask about needs more than one replica.
    """

    _spill: int | None = None

    def initialize_state(self, spill: int | None = None) -> None:
        """See `RequestRouter`."""
        self._spill = spill

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
        order = [by_name[name] for name in ranked(arguments[0], list(by_name))]
        if self._spill is not None and not is_fixed(arguments[1]["path"]):
            order = idle_first(order, self._busy, self._spill)
        return [[replica] for replica in order]

    def _busy(self, replica: RunningReplica) -> int:
        """Requests that a replica has, as far as that is known here."""
        return self.replica_queue_len_cache.get(replica.replica_id) or 0
