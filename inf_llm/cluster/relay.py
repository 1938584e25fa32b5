"""The transfer of a replica's answer to a client."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException, RequestCancelledError
from starlette.types import Message, Receive, Scope, Send

from inf_llm.serve.errors import ApiError
from inf_llm.serve.wire import event, refusal

_EVENTS = b"text/event-stream"


class Relay:
    """Forwards the messages of a replica to a client, or sends an error instead.

    Args:
        scope, receive, send: arguments of the ASGI request.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._start: Message | None = None

    async def send_all(self, messages: AsyncIterator[Message]) -> None:
        """Send the messages of a replica's answer.

        Raises:
            ApiError: the replica ended before its answer was complete.
        """
        try:
            async for message in messages:
                self._start = self._start or message
                await self._send(message)
        except RequestCancelledError:
            return  # the client has its whole answer, or has disconnected
        except (RayError, RayServeException):
            raise ApiError(
                503,
                "the replica that was to answer has ended: send the request again",
                "replica_lost",
            ) from None

    async def fail(self, error: ApiError) -> None:
        """Send an error as a response, or as an event if an event stream has begun.

        Raises:
            ApiError: the same error, if another response has begun: the connection must break.
        """
        if self._start is None:
            await refusal(error)(self._scope, self._receive, self._send)
        elif _is_event_stream(self._start):
            await self._send({"type": "http.response.body", "body": event(error.body())})
        else:
            raise error


def _is_event_stream(start: Message) -> bool:
    kinds = (value for name, value in start["headers"] if name.lower() == b"content-type")
    return any(kind.partition(b";")[0] == _EVENTS for kind in kinds)
