"""The composition root: builds the server's parts, starts and stops them in order, and nothing works at import."""

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_registry.errors import UnavailableError
from loradeck_serve.access.audit import AuditLog
from loradeck_serve.access.guard import Guard
from loradeck_serve.access.quotas import Quotas
from loradeck_serve.admission.queue import AdmissionQueue
from loradeck_serve.catalog.catalog import Catalog
from loradeck_serve.catalog.swapper import Swapper
from loradeck_serve.catalog.watcher import Watcher
from loradeck_serve.config import Address, DoorName
from loradeck_serve.cores import present_cores
from loradeck_serve.engine.base import Engine
from loradeck_serve.engine_handle import EngineHandle
from loradeck_serve.engine_start import engine_settings, start_engine
from loradeck_serve.fleet.fleet import Fleet
from loradeck_serve.grpc.adapters import AdapterServicer
from loradeck_serve.grpc.doors import ADAPTERS, INFERENCE, Door
from loradeck_serve.grpc.inference import InferenceServicer
from loradeck_serve.grpc.interceptor import DoorInterceptor
from loradeck_serve.grpc.status import Curtain
from loradeck_serve.grpc.tls import Certificates
from loradeck_serve.handlers.adapters import AdaptersHandler
from loradeck_serve.handlers.answer import AnswerHandler
from loradeck_serve.handlers.classify import ClassifyHandler
from loradeck_serve.handlers.dispatch import Dispatcher
from loradeck_serve.handlers.gate import Gate
from loradeck_serve.handlers.generate import GenerateHandler
from loradeck_serve.handlers.generation import Generation
from loradeck_serve.handlers.targets import Targets
from loradeck_serve.live import Live
from loradeck_serve.observation.adapters import AdapterObserver
from loradeck_serve.observation.calls import CallRecorder
from loradeck_serve.observation.door import MetricsDoor
from loradeck_serve.observation.gauges import Gauges
from loradeck_serve.observation.metrics import Metrics
from loradeck_serve.reload import Reloader, SettingsSource
from loradeck_serve.residency.events import Events
from loradeck_serve.residency.hold import RegistryHold
from loradeck_serve.residency.loader import AdapterLoader
from loradeck_serve.residency.manager import ResidencyManager
from loradeck_serve.sources import Sources
from loradeck_serve.supervisor import EngineSupervisor
from loradeck_serve.text.tokenizers import Tokenizers
from loradeck_serve.tracing.tracer import start_tracer

_log = logging.getLogger(__name__)

_LAST_WRITES_SECONDS = 2.0
"""What replies that are ready get to reach their callers once no request is left."""

_TURNING_SECONDS = 2.0
"""Once no call is left, callers who still come get so long, at most, to turn to another server."""

_LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Addresses:
    """Where the doors listen."""

    inference: Address
    admin: Address
    metrics: Address


class Server:
    """One server. `start` makes the engine: the real one unless a test says otherwise.

    `settings` says where the configuration can be read again; without it the limits do not change.
    """

    def __init__(
        self,
        sources: Sources,
        start: Callable[[], Awaitable[Engine]] | None = None,
        settings: SettingsSource | None = None,
    ) -> None:
        config, base = sources.config, sources.base
        self._config = config
        self._limits = Live(config.limits)
        self._guard = Guard(config.access)
        self._certificates = Certificates(config.tls) if config.tls is not None else None
        self._audit = AuditLog(config.audit_log)
        self._tracer = start_tracer(config.tracing)
        self.metrics = Metrics()
        if start is None:
            engine = engine_settings(config, base)
            cores = present_cores()
            start = lambda: start_engine(engine, cores)  # noqa: E731
        self._registry_threads = ThreadPoolExecutor(4, thread_name_prefix="registry")
        # Apart: behind long downloads no move would be noticed, and no name looked up.
        self._fetch_threads = ThreadPoolExecutor(4, thread_name_prefix="fetch")
        self._handle = EngineHandle()
        self._gate = Gate()
        self._events = Events()
        slots = config.slots if sources.registry is not None else 0
        self._catalog = Catalog(
            sources.registry, self._registry_threads, lambda meaning: self._residency.prefetch(meaning.revisions)
        )
        self._hold = RegistryHold(sources.registry) if sources.registry is not None else None
        loader = AdapterLoader(
            sources.registry, self._handle, base, sources.shapes, self._fetch_threads, self._hold,
            max_rank=config.max_rank, probe=config.probe, allow_indistinct=config.allow_indistinct,
        )  # fmt: skip
        observer = AdapterObserver(self.metrics, self._events, lambda entry: self._adapters.view(entry))  # noqa: PLW0108
        self._residency = ResidencyManager(
            loader, config.host_adapters if slots else 0, slots, config.limits.load_wait_seconds,
            self._catalog, observer,
        )  # fmt: skip
        self._queue = AdmissionQueue(self._limits, config.fairness, slots)
        self._swapper = swapper = Swapper(self._catalog, self._residency, observer.flipped)
        curtain = Curtain(sources.places)
        self._fleet: Fleet | None = None
        self._watcher: Watcher | None = None
        if sources.registry is not None:
            self._fleet = Fleet(
                sources.registry, base, self._catalog, swapper, self._residency, self._registry_threads, curtain.hide,
                config.heartbeat_seconds,
            )  # fmt: skip
            self._watcher = Watcher(
                sources.registry, self._catalog, swapper, self._registry_threads, config.watch_interval_seconds,
                observer.flip_failed, self._fleet.prepare,
            )  # fmt: skip
        self._adapters = AdaptersHandler(
            sources.registry, self._catalog, self._residency, swapper, self._events, self._handle,
            self._gate, self._registry_threads, sources.bytes_per_rank, sources.cache,
        )  # fmt: skip
        self._supervisor = EngineSupervisor(
            start, self._handle, self._residency, self._set_serving, self.metrics, config.engine_restarts
        )
        self._tokenizers = Tokenizers(base.folder, idle=lambda: self._queue.empty)
        self._base = base
        self._make_doors(Targets(self._catalog, base, config.base_tasks), curtain)
        self._gauges = Gauges(
            self.metrics, self._queue, self._residency, self._handle, self._watcher, self._certificates
        )
        self._reloader = Reloader(
            config, settings, self._limits, self._queue.limits_changed, self._guard, self._certificates, self._audit
        )
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    def _make_doors(self, targets: Targets, curtain: Curtain) -> None:
        config, metrics = self._config, self.metrics
        quotas = Quotas(self._limits)
        dispatcher = Dispatcher(
            self._queue, self._residency, self._handle, quotas, self._limits, metrics
        )  # fmt: skip
        generation = Generation(dispatcher, self._limits, metrics)

        def certificates(door: DoorName) -> Certificates | None:
            return None if door in config.plaintext_doors else self._certificates

        def door(name: Literal["inference", "admin"], address: Address) -> Door:
            recorder = CallRecorder(metrics, self._audit, self._tracer)
            opened = self._gate.check if name == "inference" else lambda: None
            interceptor = DoorInterceptor(self._limits, self._guard, quotas, recorder, curtain, opened)
            return Door(
                name, address, interceptor, config.connections, config.limits.message_bytes,
                config.limits.max_deadline_seconds, certificates(name),
            )  # fmt: skip

        self._metrics_door = MetricsDoor(config.metrics, metrics, certificates("metrics"))
        self._inference = door("inference", config.inference)
        self._admin = door("admin", config.admin)
        inference.add_InferenceServiceServicer_to_server(  # type: ignore[no-untyped-call]
            InferenceServicer(
                ClassifyHandler(targets, self._tokenizers, dispatcher, self._limits, metrics),
                AnswerHandler(targets, self._tokenizers, generation, self._limits),
                GenerateHandler(targets, self._tokenizers, generation, self._limits),
            ),
            self._inference.server,
        )
        self._inference.serves(INFERENCE)
        adapters.add_AdapterServiceServicer_to_server(  # type: ignore[no-untyped-call]
            AdapterServicer(self._adapters), self._admin.server
        )
        self._admin.serves(ADAPTERS)

    @property
    def base_name(self) -> str:
        """Name of the base, with its revision if it has one."""
        return f"{self._base.name}@{self._base.revision}" if self._base.revision else self._base.name

    @property
    def addresses(self) -> Addresses:
        """Where the doors listen; known from the beginning."""
        return Addresses(self._inference.address, self._admin.address, self._metrics_door.address)

    @property
    def engine_is_starting(self) -> bool:
        """Whether the server was stopped while its engine was on its way up."""
        return self._supervisor.starting

    def stop(self) -> None:
        """Ask the server to stop in order; asked twice, it no longer waits for running requests."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def run(self, ready: Callable[[], None], signals: bool = True) -> None:
        """Serve until `stop` or a signal. Calls `ready` once requests are taken. Raises LoradeckError."""
        loop = asyncio.get_running_loop()
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
            loop.add_signal_handler(signal.SIGHUP, self._reloader.now)
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        background: list[asyncio.Task[None]] = []
        try:
            self._warn_about_doors()
            await self._inference.start()
            await self._admin.start()
            if not await self._unless(stopping, self._begin()):
                return
            background.append(asyncio.create_task(self._supervisor.run(), name="engine supervisor"))
            background.append(asyncio.create_task(self._gauges.run(), name="gauges"))
            background.append(asyncio.create_task(self._reloader.run(), name="reloader"))
            background.append(asyncio.create_task(self._inference.ended(), name="inference door"))
            background.append(asyncio.create_task(self._admin.ended(), name="admin door"))
            if self._watcher is not None:
                background.append(asyncio.create_task(self._watcher.run(), name="watcher"))
            if self._hold is not None:
                needed = lambda: self._residency.needed  # noqa: E731
                background.append(asyncio.create_task(self._hold.run(needed), name="leases"))
            if self._fleet is not None:
                await self._fleet.join()
                background.append(asyncio.create_task(self._fleet.run(), name="fleet"))
            await self._set_serving(None)
            ready()
            done, _ = await asyncio.wait([stopping, *background], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
                raise UnavailableError(f"{task.get_name()} ended by itself", reason="BACKGROUND_TASK")
        finally:
            await self._shut_down(background)
            stopping.cancel()

    def _warn_about_doors(self) -> None:
        config, where = self._config, self.addresses
        if self._certificates is not None and self._certificates.ends < datetime.now(UTC):
            _log.warning("the certificate has ended: clients refuse it", extra={"ended": str(self._certificates.ends)})
        for name, address in (("inference", where.inference), ("admin", where.admin), ("metrics", where.metrics)):
            if address.is_loopback:
                continue
            facts = {"door": name, "address": str(address)}
            if name in config.plaintext_doors:
                _log.warning(
                    "a door beyond this machine speaks plaintext: the network must keep others out", extra=facts
                )
            if name != "metrics" and not self._guard.asks:
                _log.warning("a door beyond this machine asks nobody who he is: everybody may do all", extra=facts)

    async def _unless(self, stopping: asyncio.Task[bool], work: Awaitable[None]) -> bool:
        """Run `work`, but give it up when a stop is asked for. Returns whether it was done."""
        task = asyncio.ensure_future(work)
        await asyncio.wait([stopping, task], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return False
        task.result()
        return True

    async def _begin(self) -> None:
        await self._tokenizers.warm_up(self._base.task or self._config.base_tasks.short_qa)
        for reference in self._config.pins:
            # Raises before the engine starts, not half a minute later, if it is not there.
            await self._catalog.meaning(reference)
        await self._supervisor.start()
        info = self._handle.info
        base = self._base
        self.metrics.describe(info.version, info.dtype, base.name, base.revision, base.digest)
        for reference in self._config.pins:
            meaning = await self._catalog.meaning(reference)
            await self._swapper.load(meaning)
            self._catalog.pin(reference, meaning)

    async def _set_serving(self, closed: str | None) -> None:
        if self._gate.closed == "DRAINING":
            # Nothing comes after it: an engine that is back must not open the doors of a server that stops.
            return
        self._gate.closed = closed
        self.metrics.ready.set(0 if closed else 1)
        await self._inference.set_serving(closed is None)
        await self._admin.set_serving(closed is None)

    @property
    def _running(self) -> int:
        """Calls that were let in and have not ended, queued ones included."""
        return self._inference.running + self._admin.running

    async def _drained(self, since: float) -> None:
        """Return when no call is left, and callers have turned away or had the time to."""
        await self._no_call()
        await asyncio.gather(self._inference.quiet(since, _TURNING_SECONDS), self._admin.quiet(since, _TURNING_SECONDS))
        # The admin door still shows things to who asks.
        await self._no_call()

    async def _no_call(self) -> None:
        while True:
            if not self._running:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _shut_down(self, background: list[asyncio.Task[None]]) -> None:
        """Health first, then running requests and callers who still come, then the doors, then the engine."""
        began = time.monotonic()
        await self._set_serving("DRAINING")
        self._events.close()
        if self._fleet is not None:
            await self._fleet.leave()
        hurry = asyncio.create_task(self._hurry.wait())
        drained = asyncio.create_task(self._drained(began))
        await asyncio.wait([hurry, drained], timeout=self._config.drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._running:
            facts = {"running": self._queue.running, "waiting": self._queue.waiting, "calls": self._running}
            _log.warning("requests cut off", extra=facts)
            what = "the server stopped before the call was done"
            for door, advice in (
                (self._inference, "try again"), (self._admin, "it may have been carried out or not, so look first"),
            ):  # fmt: skip
                door.cut_off(UnavailableError(f"{what}: {advice}", reason="DRAINING", retry_after=1))
        for task in (hurry, drained, *background):
            task.cancel()
        await asyncio.gather(hurry, drained, *background, return_exceptions=True)
        await asyncio.gather(self._inference.stop(_LAST_WRITES_SECONDS), self._admin.stop(_LAST_WRITES_SECONDS))
        self._swapper.close()
        await self._residency.close()
        await self._supervisor.stop()
        if self._hold is not None:
            await self._hold.close()
        self._metrics_door.stop()
        self._audit.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)
        self._tokenizers.close()
        for threads in (self._fetch_threads, self._registry_threads):
            threads.shutdown(wait=False, cancel_futures=True)
