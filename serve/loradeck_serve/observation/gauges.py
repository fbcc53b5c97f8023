"""The gauges that are read now and then rather than counted."""

import asyncio
import time

from loradeck_registry.errors import UnavailableError
from loradeck_serve.admission.queue import AdmissionQueue
from loradeck_serve.catalog.watcher import Watcher
from loradeck_serve.engine_handle import EngineHandle
from loradeck_serve.grpc.tls import Certificates
from loradeck_serve.observation.metrics import Metrics
from loradeck_serve.residency.manager import ResidencyManager

REFRESH_SECONDS = 1.0


class Gauges:
    """Copies the present state into the gauges, once a second."""

    def __init__(
        self,
        metrics: Metrics,
        queue: AdmissionQueue,
        residency: ResidencyManager,
        engine: EngineHandle,
        watcher: Watcher | None,
        certificates: Certificates | None = None,
    ) -> None:
        self._metrics = metrics
        self._queue = queue
        self._residency = residency
        self._engine = engine
        self._watcher = watcher
        self._certificates = certificates
        self._shown: set[str] = set()

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Copy once."""
        metrics = self._metrics
        metrics.resident.set(self._residency.used)
        metrics.tasks.set(len(asyncio.all_tasks()))
        metrics.slots_used.set(self._residency.slots.used)
        totals: dict[str, list[int]] = {label: [0, 0] for label in self._shown}
        for name, (waiting, running) in self._queue.counts().items():
            total = totals.setdefault(metrics.label(name), [0, 0])
            total[0] += waiting
            total[1] += running
        for label, (waiting, running) in totals.items():
            metrics.waiting.labels(label).set(waiting)
            metrics.running.labels(label).set(running)
        self._shown = set(totals)
        if self._certificates is not None:
            metrics.certificate_ends.set(self._certificates.ends.timestamp())
        if self._watcher is not None:
            metrics.registry_age.set(time.monotonic() - self._watcher.last_success)
        try:
            stats = await self._engine.get().stats()
        except UnavailableError:
            return
        metrics.kv_used.set(stats.kv_cache_used)
        metrics.engine_running.set(stats.running)
        metrics.engine_waiting.set(stats.waiting)
