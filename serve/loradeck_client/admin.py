"""Clients of the admin door: what a server holds, and where aliases point. Sync and asyncio."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

import loradeck.adapters.v1 as adapters
from loradeck_client import convert
from loradeck_client.access import Access
from loradeck_client.aio import AsyncCaller
from loradeck_client.channel import DEFAULT_TIMEOUT, Settings
from loradeck_client.endpoints import Endpoint, Endpoints
from loradeck_client.errors import InvalidError
from loradeck_client.results import Adapter, AliasFlip, Capacity
from loradeck_client.retry import RetryPolicy
from loradeck_client.sync import Caller

C = TypeVar("C")

_PAGE = 1000


def _move_request(
    name: str, alias: str, target: str, expected_revision: int | None, reason: str
) -> adapters.MoveAliasRequest:
    return adapters.MoveAliasRequest(
        name=name, alias=alias, target=target, expected_revision=expected_revision, reason=reason
    )


def _only(endpoints: Endpoints[C]) -> Endpoint[C]:
    """The one address: what a server holds is asked of that server."""
    if len(endpoints.all) > 1:
        raise InvalidError(
            "an admin door is that of one server: name one address (`adapters move --wait` asks all servers)",
            field="server",
        )
    return endpoints.all[0]


class AdminClient:
    """Asks a server's admin door. Raises as `Client` does, and ConflictError when an alias moved meanwhile.

    `caller` is who is written into the history of aliases, unless it is empty: then user@host.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:8501",
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        caller: str = "",
        access: Access | None = None,
    ) -> None:
        self._caller = Caller(
            Settings(target, timeout, retry or RetryPolicy(), caller, access or Access()), adapters.AdapterServiceStub
        )
        self._endpoint = _only(self._caller.endpoints)

    def list(self) -> list[Adapter]:
        """Every adapter revision that the server knows."""
        found: list[Adapter] = []
        token = ""
        while True:
            request = adapters.ListAdaptersRequest(page_size=_PAGE, page_token=token)
            reply = self._caller.unary("ListAdapters", request, None, None)
            found += map(convert.adapter, reply.adapters)
            token = reply.next_page_token
            if not token:
                return found

    def get(self, adapter: str) -> Adapter:
        """The revision that a reference means now."""
        return self._one("GetAdapter", adapters.GetAdapterRequest(adapter=adapter))

    def load(self, adapter: str) -> Adapter:
        """Load now."""
        return self._one("LoadAdapter", adapters.LoadAdapterRequest(adapter=adapter))

    def unload(self, adapter: str) -> Adapter:
        """Take out after the last running request."""
        return self._one("UnloadAdapter", adapters.UnloadAdapterRequest(adapter=adapter))

    def pin(self, adapter: str) -> Adapter:
        """Load and never evict."""
        return self._one("PinAdapter", adapters.PinAdapterRequest(adapter=adapter))

    def unpin(self, adapter: str) -> Adapter:
        """End a pin."""
        return self._one("UnpinAdapter", adapters.UnpinAdapterRequest(adapter=adapter))

    def move_alias(
        self, name: str, alias: str, target: str | int, *, expected_revision: int | None = None, reason: str = ""
    ) -> tuple[Adapter, int]:
        """Load the target, move the alias in the registry, flip here. Returns the adapter and the previous revision."""
        request = _move_request(name, alias, str(target), expected_revision, reason)
        reply = self._caller.unary("MoveAlias", request, None, None, again=False)
        return convert.adapter(reply.adapter), reply.previous_revision

    def watch(self, names: Iterable[str] = ()) -> Iterator[Adapter | AliasFlip]:
        """The present state, then every change, until the server stops or the iterator is closed."""
        request = adapters.WatchAdaptersRequest(names=names)
        call = self._caller.start(
            self._endpoint, "WatchAdapters", request, metadata=self._caller.settings.metadata(None)
        )
        try:
            for message in call:
                yield convert.watch_event(message)
        except grpc.RpcError as error:
            raise self._caller.failure(error, self._endpoint.target) from None
        finally:
            call.cancel()

    def capacity(self, rank: int = 0) -> Capacity:
        """How many adapters of `rank` (0: the largest) fit."""
        request = adapters.GetCapacityRequest(rank=rank)
        return convert.capacity(self._caller.unary("GetCapacity", request, None, None))

    def close(self) -> None:
        """Close the channel."""
        self._caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _one(self, method: str, request: Any) -> Adapter:
        return convert.adapter(self._caller.unary(method, request, None, None).adapter)


class AsyncAdminClient:
    """The same with asyncio."""

    def __init__(
        self,
        target: str = "127.0.0.1:8501",
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        caller: str = "",
        access: Access | None = None,
    ) -> None:
        self._caller = AsyncCaller(
            Settings(target, timeout, retry or RetryPolicy(), caller, access or Access()), adapters.AdapterServiceStub
        )
        self._endpoint = _only(self._caller.endpoints)

    async def list(self) -> list[Adapter]:
        """Every adapter revision that the server knows."""
        found: list[Adapter] = []
        token = ""
        while True:
            request = adapters.ListAdaptersRequest(page_size=_PAGE, page_token=token)
            reply = await self._caller.unary("ListAdapters", request, None, None)
            found += map(convert.adapter, reply.adapters)
            token = reply.next_page_token
            if not token:
                return found

    async def get(self, adapter: str) -> Adapter:
        """The revision that a reference means now."""
        return await self._one("GetAdapter", adapters.GetAdapterRequest(adapter=adapter))

    async def load(self, adapter: str) -> Adapter:
        """Load now."""
        return await self._one("LoadAdapter", adapters.LoadAdapterRequest(adapter=adapter))

    async def unload(self, adapter: str) -> Adapter:
        """Take out after the last running request."""
        return await self._one("UnloadAdapter", adapters.UnloadAdapterRequest(adapter=adapter))

    async def pin(self, adapter: str) -> Adapter:
        """Load and never evict."""
        return await self._one("PinAdapter", adapters.PinAdapterRequest(adapter=adapter))

    async def unpin(self, adapter: str) -> Adapter:
        """End a pin."""
        return await self._one("UnpinAdapter", adapters.UnpinAdapterRequest(adapter=adapter))

    async def move_alias(
        self, name: str, alias: str, target: str | int, *, expected_revision: int | None = None, reason: str = ""
    ) -> tuple[Adapter, int]:
        """Load the target, move the alias in the registry, flip here. Returns the adapter and the previous revision."""
        request = _move_request(name, alias, str(target), expected_revision, reason)
        reply = await self._caller.unary("MoveAlias", request, None, None, again=False)
        return convert.adapter(reply.adapter), reply.previous_revision

    async def watch(self, names: Iterable[str] = ()) -> AsyncIterator[Adapter | AliasFlip]:
        """The present state, then every change, until the server stops or the iterator is closed."""
        request = adapters.WatchAdaptersRequest(names=names)
        start = self._caller.method(self._endpoint, "WatchAdapters")
        call = start(request, metadata=self._caller.settings.metadata(None))
        try:
            async for message in call:
                yield convert.watch_event(message)
        except grpc.RpcError as error:
            raise self._caller.failure(error, self._endpoint.target) from None
        except asyncio.CancelledError:
            self._caller.check_closed()
            raise
        finally:
            call.cancel()

    async def capacity(self, rank: int = 0) -> Capacity:
        """How many adapters of `rank` (0: the largest) fit."""
        request = adapters.GetCapacityRequest(rank=rank)
        return convert.capacity(await self._caller.unary("GetCapacity", request, None, None))

    async def close(self) -> None:
        """Close the channel."""
        await self._caller.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _one(self, method: str, request: Any) -> Adapter:
        return convert.adapter((await self._caller.unary(method, request, None, None)).adapter)
