"""The adapters that vLLM holds: checked, numbered, and brought in and out one change of an adapter after the other."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from loradeck_registry.errors import ExhaustedError, LoradeckError, PreconditionError
from loradeck_serve.engine import checks
from loradeck_serve.engine.base import EngineAdapter, EngineInfo
from loradeck_serve.engine.plugin.options import PluginOptions

FIRST_NUMBER = 1001
"""vLLM numbers adapters; its own warm-up uses the numbers from 1 on."""


class LoadedAdapters:
    """By digest. `alive` waits for an answer of the engine's processes, and raises UnavailableError once they are dead.

    Changes run to their end even if their callers are cancelled.
    """

    def __init__(
        self, llm: Any, info: EngineInfo, options: PluginOptions, alive: Callable[[Awaitable[Any]], Awaitable[Any]]
    ) -> None:
        self._llm = llm
        self._info = info
        self._options = options
        self._alive = alive
        self._numbers = itertools.count(FIRST_NUMBER)
        self._requests: dict[str, Any] = {}
        self._adapters: dict[str, EngineAdapter] = {}
        self._changes: dict[str, asyncio.Task[None]] = {}

    @property
    def digests(self) -> tuple[str, ...]:
        """What is loaded."""
        return tuple(self._adapters)

    def find(self, digest: str | None) -> EngineAdapter | None:
        """The adapter, None for the base (None). Raises NotFoundError (NOT_LOADED)."""
        if digest is None:
            return None
        try:
            return self._adapters[digest]
        except KeyError:
            raise checks.not_loaded(digest) from None

    def request(self, digest: str | None) -> Any:
        """vLLM's LoRARequest of a loaded adapter, None for the base."""
        return None if digest is None else self._requests[digest]

    async def load(self, adapter: EngineAdapter) -> None:
        """See `base.Engine.load`."""
        await self._change(adapter.digest, self._load(adapter))

    async def unload(self, digest: str) -> None:
        """See `base.Engine.unload`."""
        await self._change(digest, self._unload(digest))

    async def _change(self, digest: str, change: Coroutine[Any, Any, None]) -> None:
        """Run the changes of one adapter one after the other."""
        previous = self._changes.get(digest)

        async def run() -> None:
            if previous is not None:
                await asyncio.wait({previous})
            await change

        task = asyncio.create_task(run())
        self._changes[digest] = task

        def forget(done: asyncio.Task[None]) -> None:
            if self._changes.get(digest) is done:
                del self._changes[digest]
            if not done.cancelled():
                done.exception()

        task.add_done_callback(forget)
        await asyncio.shield(task)

    async def _load(self, adapter: EngineAdapter) -> None:
        digest = adapter.digest
        if digest in self._requests:
            return
        if not self._info.slots:
            raise PreconditionError("this engine was started without adapters (slots = 0)", reason="NO_SLOTS")
        if len(self._requests) >= self._info.host_adapters:
            raise ExhaustedError(
                f"{len(self._requests)} adapters are loaded, the most this engine holds", reason="ENGINE_FULL"
            )
        checks.check_adapter(adapter, self._options, self._info.max_rank)
        from vllm.lora.request import LoRARequest

        request = LoRARequest(
            lora_name=digest, lora_int_id=next(self._numbers), lora_path=str(adapter.folder.absolute())
        )
        # Counted from here on: further loads may start while this one is on its way.
        self._requests[digest] = request
        try:
            await self._alive(self._llm.add_lora(request))
        except BaseException as error:
            del self._requests[digest]
            if isinstance(error, LoradeckError) or not isinstance(error, Exception):
                raise
            raise PreconditionError(
                f"the engine refuses adapter {digest}: {checks.first_line(error)}", reason="ENGINE_REFUSED"
            ) from error
        self._adapters[digest] = adapter

    async def _unload(self, digest: str) -> None:
        request = self._requests.get(digest)
        if request is not None:
            await self._alive(self._llm.remove_lora(request.lora_int_id))
            self._adapters.pop(digest, None)
            self._requests.pop(digest, None)
