"""An engine without a model, for tests of everything in front of it: it notes who was asked, and misbehaves on demand.

It holds the server to the engine's contract: it records a violation when an unloaded adapter is asked, when one is
taken out while requests run on it, and when more distinct adapters run than there are slots.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence

from loradeck_registry.errors import ExhaustedError, PreconditionError, UnavailableError
from loradeck_serve.engine.base import EngineAdapter, EngineInfo, EngineOutput, EngineStats, GenerateSettings, Scores


class FakeEngine:
    """Answers with `tokens`, one per step, `step_seconds` apart; scores by the adapter's digest."""

    def __init__(
        self, *, slots: int = 2, host_adapters: int = 4, max_model_len: int = 512, step_seconds: float = 0.0
    ) -> None:
        self.info = EngineInfo("fake", max_model_len, 384, slots, host_adapters, 16 if slots else 0, "float32", 4096)
        self.step_seconds = step_seconds
        self.tokens: tuple[int, ...] = tuple(range(40, 50))
        self.loaded: dict[str, EngineAdapter] = {}
        self.running: Counter[str | None] = Counter()
        self.loads: list[str] = []
        self.unloads: list[str] = []
        self.aborted: list[str] = []
        self.settings: list[GenerateSettings] = []
        self.prompts: list[tuple[int, ...]] = []
        self.priorities: list[int] = []
        self.refuse: set[str] = set()
        self.violations: list[str] = []
        self.most_distinct = 0
        self.load_seconds = 0.0
        self.loading: list[str] = []
        """Digests whose load has begun."""
        self.load_gate = asyncio.Event()
        """Loads that have begun wait here."""
        self.load_gate.set()
        self.gate = asyncio.Event()
        """Requests wait here before their first step."""
        self.gate.set()
        self.stopped = False
        self._death: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def load(self, adapter: EngineAdapter) -> None:
        """See Engine."""
        self._check_alive()
        if adapter.digest in self.loaded:
            return
        self.loading.append(adapter.digest)
        await asyncio.sleep(self.load_seconds)
        await self.load_gate.wait()
        if adapter.digest in self.refuse:
            raise PreconditionError("refused by the test", reason="ENGINE_REFUSED")
        if len(self.loaded) >= self.info.host_adapters:
            raise ExhaustedError("full", reason="ENGINE_FULL")
        self.loads.append(adapter.digest)
        self.loaded[adapter.digest] = adapter

    async def unload(self, digest: str) -> None:
        """See Engine."""
        self._check_alive()
        if self.running[digest]:
            self.violations.append(f"unloaded {digest} while {self.running[digest]} requests ran")
        await asyncio.sleep(0)
        self.unloads.append(digest)
        self.loaded.pop(digest, None)

    async def generate(
        self, request_id: str, prompt: Sequence[int], settings: GenerateSettings, adapter: str | None, priority: int = 0
    ) -> AsyncGenerator[EngineOutput, None]:
        """See Engine."""
        self.settings.append(settings)
        self.prompts.append(tuple(prompt))
        self.priorities.append(priority)
        self._begin(adapter)
        ended = False
        try:
            await self._wait(self.gate.wait())
            tokens = self.tokens[: settings.max_tokens]
            for number, token in enumerate(tokens):
                await self._wait(asyncio.sleep(self.step_seconds))
                last = number == len(tokens) - 1
                ended = last
                yield EngineOutput(
                    (token,), ("stop" if len(tokens) < settings.max_tokens else "length") if last else None
                )
        finally:
            if not ended:
                self.aborted.append(request_id)
            self.running[adapter] -= 1

    async def score(
        self,
        request_id: str,
        prompt: Sequence[int],
        candidates: Sequence[Sequence[int]],
        adapter: str | None,
        priority: int = 0,
    ) -> Scores:
        """See Engine. The adapter's digest decides which candidate is best."""
        self.prompts.append(tuple(prompt))
        self._begin(adapter)
        try:
            await self._wait(self.gate.wait())
            await self._wait(asyncio.sleep(self.step_seconds))
            best = int(adapter.removeprefix("sha256:")[:4], 16) % len(candidates) if adapter else 0
            return Scores(
                tuple(tuple(-0.1 if i == best else -2.0 - i for _ in ids) for i, ids in enumerate(candidates))
            )
        finally:
            self.running[adapter] -= 1

    async def stats(self) -> EngineStats:
        """See Engine."""
        return EngineStats(self.running.total(), 0, 0.5, tuple(self.loaded))

    async def wait_dead(self) -> str:
        """See Engine."""
        return await asyncio.shield(self._death)

    async def stop(self) -> None:
        """See Engine."""
        self.stopped = True

    def die(self, reason: str = "killed by the test") -> None:
        """Die as an engine does: everything running fails."""
        self._death.set_result(reason)

    def _begin(self, adapter: str | None) -> None:
        self._check_alive()
        if adapter is not None and adapter not in self.loaded:
            self.violations.append(f"asked {adapter} which is not loaded")
        self.running[adapter] += 1
        distinct = len([key for key, count in self.running.items() if key is not None and count])
        self.most_distinct = max(self.most_distinct, distinct)
        if distinct > self.info.slots:
            self.violations.append(f"{distinct} distinct adapters ran in {self.info.slots} slots")

    async def _wait(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        done, _ = await self._race(task)
        if task not in done:
            raise UnavailableError("the engine died", reason="ENGINE_DEAD")

    async def _race(self, task: "asyncio.Future[object]") -> tuple[set[object], set[object]]:
        try:
            return await asyncio.wait([task, self._death], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()

    def _check_alive(self) -> None:
        if self._death.done():
            raise UnavailableError("the engine is dead", reason="ENGINE_DEAD")
