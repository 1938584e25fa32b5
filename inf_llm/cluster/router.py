"""Ray Serve's choice of a replica for each request."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from inf_llm.cluster.ranking import ranked


class MemoryRouter(RequestRouter):
    """The replica that holds the memory of a request; without one, that with the fewest requests.

    A request's first argument is its `memory_key`. A replica that has as many requests as it may is
    passed over: the next one takes the memory from the disk.
    """

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
        return [[by_name[name]] for name in ranked(arguments[0], list(by_name))]
