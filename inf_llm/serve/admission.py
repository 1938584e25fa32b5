"""What clients may take of the server: memory for bodies, and each client's share of the queue.

How long the queue may be for all is `Worker.submit`'s, how many connections `connection`'s.
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
"""Bodies of the largest size that all requests together may have; those of one client one less."""
_KEY = "inf_llm.claim"


@dataclass
class Claim:
    """What one request takes.

    Attributes:
        admission: of all.
        client: whose it is.
        bytes: of its body.
        waits: whether the client waits for the model.
        stays: whether the client goes on waiting when the request ends, until `end`.
    """

    admission: Admission
    client: str
    bytes: int = 0
    waits: bool = False
    stays: bool = False

    def take(self, count: int) -> None:
        """So many bytes of the body are held.

        Raises:
            ApiError: all requests together hold too many, or those of the client.
        """
        self.bytes += count
        self.admission.take(self.client, count)

    def enter(self) -> None:
        """The client waits for the model.

        Raises:
            ApiError: it waits for as many answers as it may.
        """
        self.admission.enter(self.client)
        self.waits = True

    def end(self) -> None:
        """Give all back."""
        self.admission.give_back(self.client, self.bytes)
        if self.waits:
            self.admission.leave(self.client)


@dataclass
class Admission:
    """What all requests take. For one thread, that of the event loop.

    Attributes:
        share: most requests of one client that wait for the model or are being answered.
        most_bytes: of the bodies of all requests.
        most_of_one: of the bodies of one client's.
        held: bytes of the bodies of each client that are held.
        asking: requests of each client that wait or are being answered.
    """

    share: int
    most_bytes: int
    most_of_one: int
    held: Counter[str] = field(default_factory=Counter)
    asking: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, share: int, request_bytes: int) -> Admission:
        """With room for `BODIES` of the largest size."""
        return cls(share, BODIES * request_bytes, (BODIES - 1) * request_bytes)

    @property
    def bytes(self) -> int:
        """Of all bodies that are held."""
        return self.held.total()

    @contextmanager
    def claim(self, scope: Scope) -> Iterator[None]:
        """A request begins; at its end all that it took is given back, unless it stays."""
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
        """The client holds so many bytes less."""
        self.held[client] -= count
        self.held += Counter()  # without those that hold none

    def enter(self, client: str) -> None:
        """See `Claim.enter`."""
        if self.asking[client] >= self.share:
            raise busy(429, f"{self.share} requests of this client are waiting already")
        self.asking[client] += 1

    def leave(self, client: str) -> None:
        """The client waits for one answer less."""
        self.asking[client] -= 1
        self.asking += Counter()  # without those that have none left


def claim_of(scope: Scope) -> Claim:
    """That of a request."""
    found: Claim = scope[_KEY]
    return found


def client_of(scope: Scope) -> str:
    """What the client of a request is called."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def entered(request: Request) -> str:
    """The client of a request that will wait for the model.

    Raises:
        ApiError: it waits for as much as it may.
    """
    claim = claim_of(request.scope)
    claim.enter()
    return claim.client
