"""Waiting for what will happen soon, with a bound that a busy machine keeps too."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def until(check: Callable[[], Any], seconds: float = 30) -> None:
    """Wait until `check()`, which may be a coroutine, is true. Raises AssertionError after `seconds`."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        found = check()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return
        assert asyncio.get_running_loop().time() < end, f"did not happen in {seconds:g} s"
        await asyncio.sleep(0.01)
