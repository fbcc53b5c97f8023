"""The engine on vLLM's AsyncLLM: adapters come in by `load` only, and nothing that vLLM refuses can end it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from loradeck_registry.errors import InvalidError, LoradeckError, UnavailableError
from loradeck_serve.engine import checks, processes, warm_up
from loradeck_serve.engine.arguments import build, plugin_options
from loradeck_serve.engine.base import EngineAdapter, EngineInfo, EngineOutput, EngineStats, GenerateSettings, Scores
from loradeck_serve.engine.loaded import LoadedAdapters
from loradeck_serve.engine.plugin.options import PluginOptions
from loradeck_serve.engine.sampling import generate_params, score_params, token_prompt
from loradeck_serve.engine.scoring import Prefix, score_candidates
from loradeck_serve.engine.settings import EngineSettings
from loradeck_serve.engine.sockets import SocketFolder
from loradeck_serve.engine.statistics import Snapshot
from loradeck_serve.engine.versions import vllm_version

T = TypeVar("T")


class VllmEngine:
    """`base.Engine` on vLLM, in processes of its own. Made by `start`; used on the event loop it was started on."""

    def __init__(
        self,
        llm: Any,
        settings: EngineSettings,
        options: PluginOptions,
        version: str,
        state: Snapshot,
        sockets: SocketFolder,
    ) -> None:
        config = llm.vllm_config
        self.info = EngineInfo(
            version=version,
            max_model_len=int(config.model_config.max_model_len),
            rows=options.rows,
            slots=settings.slots,
            host_adapters=settings.loaded_limit if settings.slots else 0,
            max_rank=settings.engine_rank if settings.slots else 0,
            dtype=str(config.model_config.dtype).removeprefix("torch."),
            kv_cache_tokens=int(config.cache_config.num_gpu_blocks or 0) * int(config.cache_config.block_size),
            # CompilationMode.NONE is 0; what the platform made of the setting, not the setting.
            compiled=bool(config.compilation_config.mode),
        )
        self._llm = llm
        self._options = options
        self._state = state
        self._sockets = sockets
        self.processes = processes.engine_processes(llm)
        """The engine's own processes (psutil)."""
        self._loaded = LoadedAdapters(llm, self.info, options, self._alive)
        self._passes = 0
        self._death: asyncio.Task[str] | None = None
        self._stop: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, settings: EngineSettings, *, operations: str = "loradeck") -> Self:
        """Start the engine's processes and return when generation, scoring and adapters are warm.

        `operations` chooses the adapter operations on a CPU: this project's or vLLM's `stock` ones, which are slow, and
        wrong for requests without an adapter. Raises InvalidError for settings that do not fit the model or vLLM,
        PreconditionError for a vLLM that is missing or of an unknown version, UnavailableError if the processes do not
        come up.
        """
        version = vllm_version()
        options = plugin_options(settings, operations)
        state, sockets = Snapshot(), SocketFolder()
        try:
            # Building the engine blocks for its whole start; the loop goes on answering meanwhile.
            llm = await asyncio.to_thread(build, settings, options, state, sockets)
        except Exception as error:
            sockets.remove()
            if isinstance(error, LoradeckError):
                raise
            raise UnavailableError(
                f"the engine did not start: {checks.first_line(error)}", reason="ENGINE_START"
            ) from error
        engine = cls(llm, settings, options, version, state, sockets)
        del llm
        try:
            await warm_up.warm_up(engine, options)
        except BaseException:
            await engine.stop()
            raise
        return engine

    async def load(self, adapter: EngineAdapter) -> None:
        """See `base.Engine.load`. A load runs to its end even if its caller is cancelled."""
        await self._loaded.load(adapter)

    async def unload(self, digest: str) -> None:
        """See `base.Engine.unload`. It runs to its end even if its caller is cancelled."""
        await self._loaded.unload(digest)

    async def generate(
        self, request_id: str, prompt: Sequence[int], settings: GenerateSettings, adapter: str | None, priority: int = 0
    ) -> AsyncIterator[EngineOutput]:
        """See `base.Engine.generate`. Raises InvalidError for a prompt that is empty, too long, or holds tokens that
        are neither the base's nor the adapter's, NotFoundError for an adapter that is not loaded."""
        stops = frozenset(settings.stop_token_ids)
        async with self._request(request_id, prompt, generate_params(settings), adapter, priority) as outputs:
            async for output in outputs:
                completion = output.outputs[0]
                tokens = tuple(completion.token_ids)
                reason = completion.finish_reason
                if reason not in (None, "stop", "length"):
                    raise UnavailableError(f"the engine ended the request: {reason}", reason="ENGINE_ABORTED")
                if reason == "stop" and tokens and tokens[-1] in stops:
                    tokens = tokens[:-1]
                yield EngineOutput(tokens, reason, int(output.num_cached_tokens or 0))

    async def score(
        self,
        request_id: str,
        prompt: Sequence[int],
        candidates: Sequence[Sequence[int]],
        adapter: str | None,
        priority: int = 0,
    ) -> Scores:
        """See `base.Engine.score`. Values are over what the request can produce: -inf for everything else."""
        own = checks.allowed_tokens(self._options, self._loaded.find(adapter))
        checks.check_candidates(candidates, self.info.rows)
        cached = 0

        async def next_logprobs(prefix: Prefix, tokens: Sequence[int]) -> dict[int, float]:
            nonlocal cached
            self._passes += 1
            name = f"{request_id}-{self._passes}"
            params = score_params(tokens)
            async with self._request(name, (*prompt, *prefix), params, adapter, priority) as outputs:
                async for output in outputs:
                    if not prefix:
                        cached = int(output.num_cached_tokens or 0)
                    row = output.outputs[0].logprobs[0]
                    return {token: float(row[token].logprob) for token in tokens}
            raise UnavailableError("the engine ended the request without an answer", reason="ENGINE_ABORTED")

        possible = [candidate[: checks.reach(candidate, self._options, own)] for candidate in candidates]
        try:
            found = await score_candidates(possible, next_logprobs)
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        values = (
            logprobs + (float("-inf"),) * (len(candidate) - len(logprobs))
            for logprobs, candidate in zip(found, candidates, strict=True)
        )
        return Scores(tuple(values), cached)

    @asynccontextmanager
    async def _request(
        self,
        request_id: str,
        prompt: Sequence[int],
        params: Any,
        adapter: str | None,
        priority: int,
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """vLLM's outputs of one request, aborted in the engine when the block is left early for any reason."""
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        loaded = self._loaded.find(adapter)
        own = checks.allowed_tokens(self._options, loaded)
        checks.check_prompt(prompt, self._options, own, self.info.max_model_len)
        if self._stop is not None:
            raise self._gone()
        stream = self._llm.generate(
            token_prompt(prompt),
            params,
            request_id,
            lora_request=self._loaded.request(adapter),
            priority=priority,
        )
        try:
            yield stream
        except EngineDeadError as error:
            raise self._gone() from error
        except EngineGenerateError as error:
            raise LoradeckError("the engine failed on this request", reason="ENGINE_FAILED") from error
        except ValueError as error:
            raise InvalidError(f"the engine refuses the request: {checks.first_line(error)}") from error
        finally:
            await stream.aclose()

    async def _alive(self, call: Awaitable[T]) -> T:
        """The result of a call to the engine's processes, which never answer once they are dead."""
        task = asyncio.ensure_future(call)
        death = self._watch()
        try:
            await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
        if task.cancelled() or not task.done():
            raise self._gone()
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            return task.result()
        except EngineDeadError as error:
            raise self._gone() from error

    def _gone(self) -> UnavailableError:
        return UnavailableError("the engine has stopped and is not restarted yet", reason="ENGINE_DEAD", retry_after=10)

    async def stats(self) -> EngineStats:
        """See `base.Engine.stats`."""
        state = self._state
        return EngineStats(state.running, state.waiting, state.kv_cache_used, self._loaded.digests)

    async def wait_dead(self) -> str:
        """See `base.Engine.wait_dead`."""
        return await asyncio.shield(self._watch())

    def _watch(self) -> asyncio.Task[str]:
        if self._death is None:
            self._death = asyncio.create_task(self._wait_for_death())
        return self._death

    async def _wait_for_death(self) -> str:
        # vLLM's reader of the engine's outputs ends exactly when the engine does.
        await asyncio.wait({self._llm.output_handler})
        return "stopped" if self._stop is not None else "the engine's process ended"

    async def stop(self) -> None:
        """See `base.Engine.stop`."""
        if self._stop is None:
            self._stop = asyncio.create_task(self._end())
        await asyncio.shield(self._stop)

    async def _end(self) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        reader = self._llm.output_handler
        if reader is not None and not reader.done():
            # Left to itself it would report the wanted end of the processes as a failure.
            death = self._watch()
            reader.cancel()
            await death
            self._llm.output_processor.propagate_error(EngineDeadError())
        await asyncio.to_thread(processes.end_engine, self._llm, self.processes)
        processes.forget_engine(self._llm)
        self._sockets.remove()
