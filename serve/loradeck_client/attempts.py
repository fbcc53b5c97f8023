"""The tries of one request: which server next, and after what wait. At any moment one server has the request."""

from typing import Generic, TypeVar

from loradeck_client.endpoints import Endpoint, Endpoints
from loradeck_client.retry import RetryPolicy
from loradeck_registry.errors import ExhaustedError, LoradeckError, UnavailableError

C = TypeVar("C")

_FULL = frozenset({"QUEUE_FULL", "NO_HOST_ROOM", "TOO_MANY_CALLS"})
"""What one server is out of and another may have. A caller's own limits are none of these: nobody goes around them."""


class Attempts(Generic[C]):
    """Goes over the addresses, each at most once without waiting in between; a further round waits as the policy says.

    `deadline` is monotonic.
    """

    def __init__(self, endpoints: Endpoints[C], policy: RetryPolicy, adapter: str, deadline: float) -> None:
        self._endpoints = endpoints
        self._policy = policy
        self._adapter = adapter
        self._deadline = deadline
        self._round = 1
        self._waits: list[float] = []
        self._left = endpoints.order(adapter)
        self.endpoint: Endpoint[C] = self._left.pop(0)
        """Whom to ask now."""

    def failed(self, error: LoradeckError) -> float:
        """`endpoint` has failed: set the next one, return the seconds to wait before it. Raises `error` at the end."""
        if isinstance(error, UnavailableError):
            self.endpoint.failed()
        else:
            self.endpoint.answered()
        wait = self._policy.wait(error, self._round, self._deadline)
        if self._left and (isinstance(error, UnavailableError) or self._full(error)):
            if wait is not None:
                self._waits.append(wait)
            self.endpoint = self._left.pop(0)
            return 0.0
        if wait is None:
            raise error
        wait = min([wait, *self._waits])
        self._round += 1
        self._waits = []
        self._left = self._endpoints.order(self._adapter)
        self.endpoint = self._left.pop(0)
        return wait

    def answered(self) -> None:
        """`endpoint` has answered."""
        self.endpoint.answered()

    @staticmethod
    def _full(error: LoradeckError) -> bool:
        return isinstance(error, ExhaustedError) and error.retry_after is not None and error.reason in _FULL
