"""Limits on clients: bytes of request bodies, and each client's share of the queue.

`Worker.submit` limits the whole queue, and `connection` the number of connections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import Scope

from inf_llm.serve.errors import busy

BODIES = 4
"""Bodies of the largest size that all requests may hold together; one client may hold one less."""
_KEY = "inf_llm.claim"


@dataclass
class Claim:
    """The bytes and the queue place of one request.

    Attributes:
        admission: the totals of all requests.
        client: name of the client.
        bytes: bytes of the request body that are held.
        waits: whether the request has a place in the queue for the model.
        stays: whether the claim outlives the HTTP request, until `end` is called.
    """

    admission: Admission
    client: str
    bytes: int = 0
    waits: bool = False
    stays: bool = False

    def take(self, count: int) -> None:
        """Add `count` bytes of the body.

        Raises:
            ApiError: all requests together, or all requests of the client, hold too many bytes.
        """
        self.bytes += count
        self.admission.take(self.client, count)

    def enter(self) -> None:
        """Take a place in the queue for the model.

        Raises:
            ApiError: the client has used up its share of the queue.
        """
        self.admission.enter(self.client)
        self.waits = True

    def end(self) -> None:
        """Release the bytes and the queue place."""
        self.admission.give_back(self.client, self.bytes)
        if self.waits:
            self.admission.leave(self.client)


@dataclass
class Admission:
    """The totals of all requests. Only the event loop's thread uses them.

    Attributes:
        share: most requests of one client that wait for the model or are being answered.
        most_bytes: most bytes of the bodies of all requests.
        most_of_one: most bytes of the bodies of one client's requests.
        held: bytes of the bodies that are held, by client.
        asking: number of requests that wait or are being answered, by client.
    """

    share: int
    most_bytes: int
    most_of_one: int
    held: Counter[str] = field(default_factory=Counter)
    asking: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, share: int, request_bytes: int) -> Admission:
        """Make an admission with room for `BODIES` bodies of `request_bytes` bytes."""
        return cls(share, BODIES * request_bytes, (BODIES - 1) * request_bytes)

    @property
    def bytes(self) -> int:
        """Bytes of all bodies that are held."""
        return self.held.total()

    @contextmanager
    def claim(self, scope: Scope) -> Iterator[None]:
        """Make the claim of a request, and end it with the request unless it has `stays`."""
        claim = scope[_KEY] = Claim(self, client_of(scope))
        try:
            yield
        finally:
            if not claim.stays:
                claim.end()

    def take(self, client: str, count: int) -> None:
        """See `Claim.take`."""
        self.held[client] += count
        if self.bytes > self.most_bytes:
            raise busy(503, f"the bodies of requests have {self.most_bytes:,} bytes already")
        if self.held[client] > self.most_of_one:
            most = self.most_of_one
            raise busy(429, f"the bodies of this client's requests have {most:,} bytes already")

    def give_back(self, client: str, count: int) -> None:
        """Subtract `count` bytes from those that the client holds."""
        self.held[client] -= count
        self.held += Counter()  # drops clients with a count of 0

    def enter(self, client: str) -> None:
        """See `Claim.enter`."""
        if self.asking[client] >= self.share:
            raise busy(429, f"{self.share} requests of this client are waiting already")
        self.asking[client] += 1

    def leave(self, client: str) -> None:
        """Release one queue place of the client."""
        self.asking[client] -= 1
        self.asking += Counter()  # drops clients with a count of 0


def claim_of(scope: Scope) -> Claim:
    """Return the claim of a request."""
    claim: Claim = scope[_KEY]
    return claim


def client_of(scope: Scope) -> str:
    """Return the name of a request's client: its IP address, or "unknown"."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def entered(request: Request) -> str:
    """Take a place in the queue for a request, and return the name of its client.

    Raises:
        ApiError: the client has used up its share of the queue.
    """
    claim = claim_of(request.scope)
    claim.enter()
    return claim.client
