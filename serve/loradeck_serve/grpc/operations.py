"""What is asked of gRPC for one call, so that nothing of the call stays when it is over.

grpc.aio (1.85.1) frees what an operation holds only where it is awaited to its end (grpc #43360). A read that is
cancelled keeps its message for ever, and with it the 64 KiB in which it arrived.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import grpc

from loradeck_registry.errors import InvalidError

_ABORT_SECONDS = 1.0
"""How long the status of a call may take to be sent. A caller who reads nothing would hold it for ever."""


async def to_its_end(work: Coroutine[Any, Any, Any]) -> Any:
    """Await what gRPC does, and leave it running if this task is cancelled: it ends with the call."""
    return await asyncio.shield(begun(work))


def begun(work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
    """Start `work`, whose error is nobody's if nobody waits for it any more: asyncio would log it."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return task


async def message(handler: Any, context: Any) -> Any:
    """The request. Raises InvalidError (BAD_MESSAGE) if there is none, DecodeError if it is something else."""
    content = await to_its_end(context.read())
    if content is grpc.aio.EOF:  # type: ignore[attr-defined]
        raise InvalidError("the call carries no message", reason="BAD_MESSAGE")
    return handler.request_deserializer(content)


async def messages(context: Any) -> AsyncIterator[Any]:
    """Those of a method that streams its requests."""
    while (found := await to_its_end(context.read())) is not grpc.aio.EOF:  # type: ignore[attr-defined]
        yield found


async def abort(context: Any, status: Any, trailing: tuple[tuple[str, str | bytes], ...]) -> None:
    """Send the status. Never returns. Raises CancelledError if the caller does not take it, or has gone."""
    sending = to_its_end(context.abort(status.code, status.details, trailing))
    del context, trailing
    try:
        async with asyncio.timeout(_ABORT_SECONDS):
            await sending
    except grpc.aio.AbortError:
        raise
    except (TimeoutError, grpc.aio.BaseError):
        raise asyncio.CancelledError from None
    finally:
        del sending


def follow(first: asyncio.Future[Any], aborting: Coroutine[Any, Any, None]) -> None:
    """Let the status come after the first message, whenever the caller takes that."""

    def ended(first: asyncio.Future[Any]) -> None:
        if first.cancelled() or first.exception() is not None:
            aborting.close()
        else:
            begun(aborting)

    first.add_done_callback(ended)


def forget_frames(error: BaseException) -> None:
    """Take the tracebacks from an error and what led to it.

    They hold frames, and frames hold errors: such a cycle would keep all of a refused call, and gRPC's memory for it,
    until a full garbage collection, which is rare in a process with so many objects.
    """
    found: BaseException | None = error
    seen: set[int] = set()
    # (`raise error from error` is its own cause.)
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        found.__traceback__ = None
        found = found.__cause__ or found.__context__
