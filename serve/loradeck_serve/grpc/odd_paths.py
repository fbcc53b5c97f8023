"""Keeps a door alive when a call's path is not UTF-8.

grpc.aio (1.85.1) decodes the path of a call to an unknown method in the loop that takes calls. One call with a path
that is not UTF-8, from anybody who can connect, ends that loop and with it the server and every call on it. The
decoding happens in compiled code, before any interceptor. What Python lets us change is what a decoding error does: in
that loop, and nowhere else, the odd bytes become U+FFFD, so the method is one that does not exist: UNIMPLEMENTED.
"""

import asyncio
import codecs

_LOOP = "_server_main_loop"


def survive_odd_paths() -> None:
    """To be called before a door is made. Idempotent."""
    if codecs.lookup_error("strict") is not _strict:
        codecs.register_error("strict", _strict)


def _strict(error: UnicodeError) -> tuple[str | bytes, int]:
    """Raise the error as ever, but for a path in grpc.aio's loop."""
    if isinstance(error, UnicodeDecodeError) and _in_loop():
        return "\ufffd", error.end
    raise error


def _in_loop() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    name = getattr(task.get_coro(), "__qualname__", "") if task is not None else ""
    return name.endswith(_LOOP)
