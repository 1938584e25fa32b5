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

_KEY = "inf_llm.claim"


@dataclass
class Claim:
    """What one request takes.

    Attributes:
        admission: of all.
        bytes: of its body.
        client: that waits for the model, if one does.
        stays: whether the client goes on waiting when the request ends, until `end`.
    """

    admission: Admission
    bytes: int = 0
    client: str | None = None
    stays: bool = False

    def take(self, count: int) -> None:
        """So many bytes of the body are held.

        Raises:
            ApiError: all requests together hold too many.
        """
        self.bytes += count
        self.admission.bytes += count
        if self.admission.bytes > self.admission.most_bytes:
            most = self.admission.most_bytes
            raise busy(503, f"the bodies of requests have {most:,} bytes already")

    def enter(self, client: str) -> None:
        """The client waits for the model.

        Raises:
            ApiError: it waits for as many answers as it may.
        """
        self.admission.enter(client)
        self.client = client

    def end(self) -> None:
        """Give all back."""
        self.admission.bytes -= self.bytes
        if self.client is not None:
            self.admission.leave(self.client)


@dataclass
class Admission:
    """What all requests take. For one thread, that of the event loop.

    Attributes:
        share: most requests of one client that wait for the model or are being answered.
        most_bytes: of the bodies of all requests.
        bytes: of the bodies that are held.
        asking: requests of each client that wait or are being answered.
    """

    share: int
    most_bytes: int
    bytes: int = 0
    asking: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def claim(self, scope: Scope) -> Iterator[None]:
        """A request begins; at its end all that it took is given back, unless it stays."""
        claim = scope[_KEY] = Claim(self)
        try:
            yield
        finally:
            if not claim.stays:
                claim.end()

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


def client_of(request: Request) -> str:
    """What a client is called."""
    return request.client.host if request.client else "unknown"


def entered(request: Request) -> str:
    """The client of a request that will wait for the model.

    Raises:
        ApiError: it waits for as much as it may.
    """
    client = client_of(request)
    claim_of(request.scope).enter(client)
    return client
