"""AdapterService: converts, calls the handler, converts."""

import base64
import binascii
from contextlib import aclosing
from typing import Any

import loradeck.adapters.v1 as adapters
from loradeck_registry.errors import InvalidError
from loradeck_serve.grpc import converters
from loradeck_serve.grpc.calls import current_call
from loradeck_serve.handlers.adapters import AdaptersHandler

_PAGE = 100
_LARGEST_PAGE = 1000


class AdapterServicer(adapters.AdapterServiceServicer):
    """Errors are raised as domain errors; the interceptor maps them."""

    def __init__(self, handler: AdaptersHandler) -> None:
        self._handler = handler

    async def ListAdapters(self, request: adapters.ListAdaptersRequest, context: Any) -> adapters.ListAdaptersResponse:
        """See the proto. A page token names the last entry before, so pages stay right while entries come."""
        if not 0 <= request.page_size <= _LARGEST_PAGE:
            raise InvalidError(f"`page_size` must be 0 to {_LARGEST_PAGE}", reason="OUT_OF_RANGE", field="page_size")
        size = request.page_size or _PAGE
        views = self._handler.list(current_call.get())
        if request.page_token:
            after = _position(request.page_token)
            views = [view for view in views if (view.name, view.revision) > after]
        page = views[:size]
        token = _token(page[-1].name, page[-1].revision) if len(views) > size else ""
        return adapters.ListAdaptersResponse(adapters=map(converters.adapter, page), next_page_token=token)

    async def GetAdapter(self, request: adapters.GetAdapterRequest, context: Any) -> adapters.GetAdapterResponse:
        """See the proto."""
        view = await self._handler.get(current_call.get(), request.adapter)
        return adapters.GetAdapterResponse(adapter=converters.adapter(view))

    async def LoadAdapter(self, request: adapters.LoadAdapterRequest, context: Any) -> adapters.LoadAdapterResponse:
        """See the proto."""
        view = await self._handler.load(current_call.get(), request.adapter)
        return adapters.LoadAdapterResponse(adapter=converters.adapter(view))

    async def UnloadAdapter(
        self, request: adapters.UnloadAdapterRequest, context: Any
    ) -> adapters.UnloadAdapterResponse:
        """See the proto."""
        view = await self._handler.unload(current_call.get(), request.adapter)
        return adapters.UnloadAdapterResponse(adapter=converters.adapter(view))

    async def PinAdapter(self, request: adapters.PinAdapterRequest, context: Any) -> adapters.PinAdapterResponse:
        """See the proto."""
        view = await self._handler.pin(current_call.get(), request.adapter)
        return adapters.PinAdapterResponse(adapter=converters.adapter(view))

    async def UnpinAdapter(self, request: adapters.UnpinAdapterRequest, context: Any) -> adapters.UnpinAdapterResponse:
        """See the proto."""
        view = await self._handler.unpin(current_call.get(), request.adapter)
        return adapters.UnpinAdapterResponse(adapter=converters.adapter(view))

    async def MoveAlias(self, request: adapters.MoveAliasRequest, context: Any) -> adapters.MoveAliasResponse:
        """See the proto."""
        expected = request.expected_revision if request.HasField("expected_revision") else None
        view, previous = await self._handler.move_alias(
            current_call.get(), request.name, request.alias, request.target, expected, request.reason
        )
        return adapters.MoveAliasResponse(adapter=converters.adapter(view), previous_revision=previous)

    async def WatchAdapters(self, request: adapters.WatchAdaptersRequest, context: Any) -> None:
        """See the proto."""
        events = self._handler.watch(current_call.get(), request.names)
        async with aclosing(events):
            async for event in events:
                await context.write(converters.watch_adapters_response(event))

    async def GetCapacity(self, request: adapters.GetCapacityRequest, context: Any) -> adapters.GetCapacityResponse:
        """See the proto."""
        return converters.get_capacity_response(self._handler.capacity(request.rank))


def _token(name: str, revision: int) -> str:
    return base64.urlsafe_b64encode(f"{name}@{revision}".encode()).decode()


def _position(token: str) -> tuple[str, int]:
    try:
        name, _, revision = base64.urlsafe_b64decode(token.encode()).decode().partition("@")
        return name, int(revision)
    except (binascii.Error, ValueError):
        raise InvalidError("`page_token` is not one of this server's", reason="BAD_TOKEN", field="page_token") from None
